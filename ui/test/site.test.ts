import { describe, expect, it } from "vitest";
import { boundsOf, describeChange, describeSite, doingOf, groupsOf, hasPlan, patched, pitchOf, placeAt, summaryOf } from "../src/site";
import type { Robot, Site } from "../src/type";

function site(id: string, part: Partial<Site> = {}): Site {
  return {
    id,
    group: "BUF",
    order_no: 0,
    enabled: true,
    filled: false,
    content: null,
    locked_by: null,
    locked_text: null,
    lane: null,
    depth: null,
    mouths: null,
    tags: [],
    attrs: {},
    map_id: null,
    x: null,
    y: null,
    updated_at: 0,
    ...part,
  };
}

describe("groupsOf", () => {
  it("draws racks in rows, in natural order", () => {
    const [group] = groupsOf(["B_1", "A_10", "A_2", "B_2", "A_1"].map((id) => site(id)));
    expect(group?.layout).toMatchObject({ kind: "grid" });
    const rows = group?.layout.kind === "grid" ? group.layout.rows.map((row) => row.map((one) => one.id)) : [];
    expect(rows).toEqual([
      ["A_1", "A_2", "A_10"],
      ["B_1", "B_2"],
    ]);
  });

  it("draws one wrapping row when names tell no rows", () => {
    const [group] = groupsOf(["LEFT", "RIGHT"].map((id) => site(id)));
    expect(group?.layout.kind === "grid" && group.layout.rows).toHaveLength(1);
  });

  it("draws lanes from the mouth inwards", () => {
    const lane = (id: string, name: string, depth: number, mouths: number) => site(id, { group: "LANES", lane: name, depth, mouths });
    const [group] = groupsOf([lane("c", "L2", 1, 2), lane("b", "L1", 2, 1), lane("a", "L1", 1, 1)]);
    const lanes = group?.layout.kind === "lanes" ? group.layout.lanes : [];
    expect(lanes.map((one) => [one.name, one.mouths, one.sites.map((cell) => cell.id)])).toEqual([
      ["L1", 1, ["a", "b"]],
      ["L2", 2, ["c"]],
    ]);
  });

  it("orders by number before name", () => {
    const [group] = groupsOf([site("X", { order_no: 2 }), site("Z", { order_no: 1 })]);
    expect(group?.layout.kind === "grid" && group.layout.rows[0]?.map((one) => one.id)).toEqual(["Z", "X"]);
  });
});

describe("words", () => {
  it("says what a site is", () => {
    expect(describeSite(site("A", { filled: true, content: "SKU1", locked_by: { run: "r", path: "-1" } }))).toBe("A: filled with SKU1, locked by a run");
    expect(describeSite(site("A", { locked_text: "cleaning", enabled: false }))).toBe("A: empty, locked: cleaning, disabled");
    expect(summaryOf([site("A", { filled: true }), site("B", { enabled: false })])).toBe("1 of 2 filled, 1 disabled");
  });
});

describe("changes", () => {
  it("are told in words", () => {
    expect(describeChange({ filled: true, content: "bolts" })).toBe("filled, content bolts");
    expect(describeChange({ locked_run: "01J", locked_path: "-1/2", locked_text: null })).toBe("locked");
    expect(describeChange({ locked_run: null, was: "01J" })).toBe("unlocked");
    expect(describeChange({ enabled: false, attrs: { kg: 8 } })).toBe('disabled, attrs: {"kg":8}');
  });
});

describe("the plan", () => {
  it("needs places for most sites, and measures them", () => {
    const placed = [site("A", { x: 0, y: 0 }), site("B", { x: 4, y: 3 })];
    const unplaced = ["C", "D", "E"].map((id) => site(id));
    expect([hasPlan(placed), hasPlan([...placed, site("C")]), hasPlan([...placed, ...unplaced]), hasPlan([])]).toEqual([true, true, false, false]);
    expect(boundsOf([{ x: 0, y: 0 }, { x: 4, y: 3 }], 1)).toEqual({ left: -1, top: -1, width: 6, height: 5 });
    const all = [{ x: 0, y: 0 }, { x: 4, y: 3 }, { x: 4, y: 5 }];
    expect([pitchOf(all, all), pitchOf(all.slice(0, 1), all), pitchOf([{ x: 1, y: 1 }], [{ x: 1, y: 1 }])]).toEqual([2, 4, 1]);
  });
});

describe("patched", () => {
  it("changes what is known, adds what is new, keeps the rest as it is", () => {
    const sites = [site("A"), site("B")];
    const after = patched(sites, "site", { events: [{ type: "site", ...site("B", { filled: true }) }, { type: "site", ...site("C") }], missed: 0 }, 10);
    expect(after.map((one) => [one.id, one.filled])).toEqual([
      ["A", false],
      ["B", true],
      ["C", false],
    ]);
    expect("type" in (after[1] as object)).toBe(false);
    expect(patched(sites, "site", { events: [], missed: 0 }, 10)).toBe(sites);
  });
});

describe("robots", () => {
  const robot: Robot = {
    id: "R1",
    state: "MOVING",
    battery: 0.5,
    station: null,
    x: 1,
    y: 2,
    run: null,
    path: null,
    operation: "ForkLoad",
    target: "IN_1",
    carrying: null,
    waypoints: [
      [100, 0, 0],
      [110, 10, 0],
      [120, 10, 20],
    ],
    error: null,
  };

  it("are where their way says", () => {
    expect([90, 100, 105, 110, 115, 300].map((at) => placeAt(robot, at))).toEqual([
      { x: 0, y: 0 },
      { x: 0, y: 0 },
      { x: 5, y: 0 },
      { x: 10, y: 0 },
      { x: 10, y: 10 },
      { x: 10, y: 20 },
    ]);
    expect(placeAt({ ...robot, waypoints: [] }, 100)).toEqual({ x: 1, y: 2 });
    expect(placeAt({ ...robot, waypoints: [], x: null }, 100)).toBeNull();
  });

  it("say what they do", () => {
    expect(doingOf(robot)).toBe("ForkLoad at IN_1");
    expect(doingOf({ ...robot, operation: null, carrying: "C-7" })).toBe("drives to IN_1, carries C-7");
    expect(doingOf({ ...robot, operation: null, target: null })).toBe("");
  });
});
