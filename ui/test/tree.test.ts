import { describe, expect, it } from "vitest";
import { nodeAt, reveal, rowsOf, StepIndex, treeOfDefinition, type TreeView } from "../src/tree";
import type { BlockState, Step, TreeNode } from "../src/type";

const node = (id: number, type: string, children: Record<string, TreeNode[]> = {}): TreeNode => ({ id, name: `b${id}`, type, children });
const root = node(-1, "RootBp", {
  default: [node(1, "PrintBp"), node(3, "WhileBp", { default: [node(5, "PrintBp"), node(6, "RepeatNumBp", { default: [node(7, "PrintBp")] })] }), node(8, "IfElseBp", { if: [node(9, "PrintBp")], else: [node(10, "PrintBp")] })],
});
const step = (path: string, state: BlockState = "SUCCEEDED"): Step => ({ path, name: "", state });
const open: TreeView = { closed: new Set(), iteration: new Map() };
const paths = (index: StepIndex, view = open) => rowsOf(root, index, view, "RUNNING").rows.map((row) => row.path);

describe("rowsOf", () => {
  it("shows the whole definition before anything has run", () => {
    expect(paths(new StepIndex())).toEqual(["-1", "-1/1", "-1/3", "-1/3/5", "-1/3/6", "-1/3/6/7", "-1/8", "-1/8/9", "-1/8/10"]);
  });

  it("folds loops to one iteration: the one that runs, else the one that failed, else the last", () => {
    const steps = [0, 1, 2].flatMap((i) => [step(`-1/3[${i}]/5`, i === 1 ? "FAILED" : "SUCCEEDED"), step(`-1/3[${i}]/6`)]);
    expect(paths(new StepIndex(steps))).toContain("-1/3[1]/5");
    const running = new StepIndex([...steps, step("-1/3[3]/5", "RUNNING")]);
    expect(paths(running)).toContain("-1/3[3]/5");
    expect(paths(new StepIndex(steps.map((one) => ({ ...one, state: "SUCCEEDED" as const }))))).toContain("-1/3[2]/5");
    const row = rowsOf(root, running, open, "RUNNING").rows.find((one) => one.path === "-1/3");
    expect([...(row?.iterations?.states ?? [])]).toEqual([
      [0, "SUCCEEDED"],
      [1, "FAILED"],
      [2, "SUCCEEDED"],
      [3, "RUNNING"],
    ]);
  });

  it("follows the chosen iteration, also of a loop within a loop", () => {
    const index = new StepIndex([step("-1/3[0]/6[0]/7"), step("-1/3[0]/6[1]/7"), step("-1/3[1]/6[0]/7")]);
    const view = { ...open, iteration: new Map([["-1/3", 0], ["-1/3[0]/6", 0]]) };
    expect(paths(index, view)).toContain("-1/3[0]/6[0]/7");
    expect(paths(index)).toContain("-1/3[1]/6[0]/7");
  });

  it("names branches, and hides what hangs under a closed block", () => {
    const rows = rowsOf(root, new StepIndex(), { ...open, closed: new Set(["-1/3"]) }, "RUNNING").rows;
    expect(rows.map((row) => row.path)).not.toContain("-1/3/5");
    expect(rows.filter((row) => row.branch !== null).map((row) => [row.path, row.branch])).toEqual([
      ["-1/8/9", "if"],
      ["-1/8/10", "else"],
    ]);
  });

  it("takes blocks with children that have begun for as their run is, and shows waits", () => {
    const index = new StepIndex([step("-1/1")]);
    index.wait({ path: "-1/3[0]/5", kind: "site", reason: "an empty site in BUF", since: 5, place: 2 });
    index.wait({ path: "-1/1", kind: "site", reason: "an old wait", since: 1, place: null });
    const states = new Map(rowsOf(root, index, open, "WAITING").rows.map((row) => [row.path, row.state]));
    expect([...states]).toEqual([
      ["-1", "WAITING"],
      ["-1/1", "SUCCEEDED"],
      ["-1/3", "WAITING"],
      ["-1/3[0]/5", "WAITING"],
      ["-1/3[0]/6", null],
      ["-1/3[0]/6/7", null],
      ["-1/8", null],
      ["-1/8/9", null],
      ["-1/8/10", null],
    ]);
    expect(index.get("-1/3[0]/5")).toMatchObject({ started_at: 5, wait: { place: 2 } });
    const failed = new StepIndex([step("-1/1", "FAILED")]);
    failed.wait({ path: "-1/1#retry1", kind: "timer", reason: "attempt 2 of 3", since: 9, place: null });
    expect(failed.get("-1/1")?.state).toBe("WAITING");
  });

  it("tells branches in the order in which people read them", () => {
    const sorted = node(-1, "RootBp", { default: [node(1, "IfElseIfBp", { else: [node(2, "A")], else_if: [node(3, "B")], if: [node(4, "C")] })] });
    expect(rowsOf(sorted, new StepIndex(), open, "RUNNING").rows.map((row) => row.branch)).toEqual([null, null, "if", "else_if", "else"]);
  });

  it("draws a bounded number of rows and counts the others", () => {
    const wide = node(-1, "RootBp", { default: Array.from({ length: 10_000 }, (_, i) => node(i + 1, "PrintBp")) });
    const { rows, more } = rowsOf(wide, new StepIndex(), open, "RUNNING", 600);
    expect([rows.length, more]).toEqual([600, 9401]);
  });
});

describe("StepIndex", () => {
  it("holds a bounded number of steps but goes on updating those it knows", () => {
    const index = new StepIndex([], 10);
    for (let i = 0; i < 1000; i++) index.put(step(`-1/3[${i}]/5`));
    index.put(step("-1/3[0]/5", "FAILED"));
    expect([index.size, index.dropped, index.get("-1/3[0]/5")?.state]).toEqual([10, 990, "FAILED"]);
    expect(index.iterations("-1/3", undefined)?.indices).toHaveLength(10);
  });

  it("keeps what an event does not tell", () => {
    const index = new StepIndex([{ ...step("-1/1", "RUNNING"), started_at: 5 }]);
    index.put({ path: "-1/1", name: "b1", state: "SUCCEEDED" });
    expect(index.get("-1/1")).toMatchObject({ started_at: 5, state: "SUCCEEDED" });
  });

  it("names the innermost blocks that run", () => {
    const index = new StepIndex([step("-1", "RUNNING"), step("-1/3", "RUNNING"), step("-1/3[2]/5", "RUNNING"), step("-1/1")]);
    expect(index.doing(root, new Set(["RUNNING"]))).toEqual(["b5"]);
  });
});

describe("paths", () => {
  it("opens the tree at a block", () => {
    const view = reveal("-1/3[4]/6[1]/7", { closed: new Set(["-1", "-1/3", "-1/8"]), iteration: new Map() });
    expect([...view.closed]).toEqual(["-1/8"]);
    expect([...view.iteration]).toEqual([
      ["-1/3", 4],
      ["-1/3[4]/6", 1],
    ]);
  });

  it("finds the node of a path", () => {
    expect(nodeAt(root, "-1/3[4]/6[1]/7")?.id).toBe(7);
    expect(nodeAt(root, "-1/99")).toBeNull();
    expect(nodeAt(root, "0")).toBeNull();
  });

  it("draws definitions, also unfinished ones", () => {
    const tree = treeOfDefinition({ id: -1, name: "r", blockType: "RootBp", children: { default: [{ id: 1, blockType: "PrintBp" }, null, 5] } });
    expect(tree?.children?.default?.map((child) => [child.id, child.type])).toEqual([[1, "PrintBp"]]);
    expect(treeOfDefinition("nonsense")).toBeNull();
  });
});
