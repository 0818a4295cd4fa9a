import { describe, expect, it } from "vitest";
import { byFullness, describeLedger, fullness } from "../src/ledger";
import type { LedgerItem } from "../src/type";

function item(name: string, size: number, bound: number, part: Partial<LedgerItem> = {}): LedgerItem {
  return { name, kind: "cache", size, bound, bytes: null, max_bytes: null, evictions: 0, ...part };
}

describe("the ledger", () => {
  it("takes the nearer of two bounds", () => {
    expect(fullness(item("a", 10, 100))).toBe(0.1);
    expect(fullness(item("a", 10, 100, { bytes: 75, max_bytes: 100 }))).toBe(0.75);
    expect(fullness(item("a", 0, 0))).toBe(0);
  });

  it("puts what is full by design last", () => {
    const items = [item("histogram", 9, 9, { kind: "histogram" }), item("one", 1, 1), item("b", 5, 10), item("a", 9, 10)];
    expect(byFullness(items).map((one) => one.name)).toEqual(["a", "b", "histogram", "one"]);
  });

  it("answers in a sentence", () => {
    expect(describeLedger([])).toBe("The server reports no collections.");
    expect(describeLedger([item("a", 5, 10), item("b", 1, 10, { evictions: 3 })])).toBe(
      "Each of 2 is within its bound; the fullest is a at 50 %. 3 entries were let go to stay there.",
    );
    expect(describeLedger([item("a", 11, 10)])).toMatch(/^Beyond the bound: a/);
  });
});
