import { describe, expect, it } from "vitest";
import { BoundedMap, pageLedger, Ring } from "../src/bounded";
import { href, parseRoute } from "../src/route";

describe("BoundedMap", () => {
  it("forgets the oldest first", () => {
    const map = new BoundedMap<string, number>(2);
    map.set("a", 1);
    map.set("b", 2);
    map.set("a", 3);
    map.set("c", 4);
    expect([map.get("a"), map.get("b"), map.get("c"), map.size, map.evictions]).toEqual([undefined, 2, 4, 2, 1]);
  });
});

describe("Ring", () => {
  it("keeps the last values in order", () => {
    const ring = new Ring<number>(3);
    for (let i = 0; i < 100; i++) ring.push(i);
    expect([ring.toArray(), ring.last, ring.size, ring.evictions]).toEqual([[97, 98, 99], 99, 3, 97]);
    ring.replace([1, 2, 3, 4]);
    ring.push(5);
    expect([ring.toArray(), ring.last]).toEqual([[3, 4, 5], 5]);
  });

  it("is in the page's ledger when it has a name", () => {
    new Ring<number>(5, "a named ring").push(1);
    expect(pageLedger().filter((item) => item.name === "a named ring")).toMatchObject([{ kind: "ring", size: 1, bound: 5, evictions: 0 }]);
  });
});

describe("addresses", () => {
  it("go there and back", () => {
    const address = href(["runs", "a/b c"], { block: "-1/3[2]/5", tab: "", none: null });
    expect(address).toBe("#/runs/a%2Fb%20c?block=-1%2F3%5B2%5D%2F5");
    expect(parseRoute(address)).toEqual({ path: ["runs", "a/b c"], query: { block: "-1/3[2]/5" } });
  });

  it("survive nonsense", () => {
    expect(parseRoute("")).toEqual({ path: [], query: {} });
    expect(parseRoute("#/runs/%E0%A4%A")).toEqual({ path: ["runs", "%E0%A4%A"], query: {} });
  });
});
