import { describe, expect, it } from "vitest";
import type { Batch, StreamEvent } from "../src/event";
import { ACTIONS, allows, bornAt, describeRun, describeWait, matches, merge, REQUESTED, RunList, STATES } from "../src/run";
import type { Run } from "../src/type";

function run(part: Partial<Run> = {}): Run {
  return {
    id: "01J0",
    definition: "putaway",
    label: "Put away",
    version: 1,
    state: "RUNNING",
    priority: 0,
    due_at: null,
    created_at: 100,
    started_at: 101,
    ended_at: null,
    attempt: 1,
    error: null,
    error_path: null,
    parent_id: null,
    out_order_no: null,
    state_message: null,
    wait: null,
    ...part,
  };
}

const batch = (...events: StreamEvent[]): Batch => ({ events, missed: 0 });
const everything = { states: [], definition: "", order: "" };

describe("words", () => {
  it("tells what a block waits for, its place and since when", () => {
    const wait = { path: "-1/3", kind: "site", reason: "an empty site in BUF", since: 88, place: 3 };
    expect(describeWait(wait, 100)).toBe("waits for an empty site in BUF, 3rd in the queue, since 12 s");
    expect(describeWait({ ...wait, place: 1 }, 100)).toContain("next in the queue");
    expect(describeWait({ ...wait, reason: "waiting for a robot" }, 100)).toMatch(/^waiting for a robot/);
    expect(describeWait({ ...wait, reason: "", place: null, since: null }, 100)).toBe("waits for a site");
  });

  it("has a sentence for every state", () => {
    for (const state of STATES) expect(describeRun(run({ state }), 110)).toMatch(/\.$/);
    expect(describeRun(run({ state: "QUEUED", due_at: 140 }), 110)).toBe("Starts in 30 s.");
    expect(describeRun(run(), 110, ["load", "watch"])).toBe("Runs load, watch.");
    const wait = [{ path: "-1", kind: "timer", reason: "30 s to pass", since: 105, place: null }];
    expect(describeRun(run({ wait }), 110)).toBe("Waits for 30 s to pass, since 5 s.");
    expect(describeRun(run({ state: "SUCCEEDED", ended_at: 113.5 }), 200)).toBe("Succeeded after 13 s.");
  });
});

describe("actions", () => {
  it("offers what the state allows", () => {
    const allowed = (state: Run["state"]) => ACTIONS.filter((action) => allows(state, action));
    expect(allowed("RUNNING")).toEqual(["pause", "cancel"]);
    expect(allowed("PAUSED")).toEqual(["resume", "cancel"]);
    expect(allowed("FAILED")).toEqual(["retry"]);
    expect(allowed("NEEDS_OPERATOR")).toEqual(["resume", "retry", "cancel"]);
    expect(allowed("CANCELED")).toEqual(["retry"]);
    expect(allowed("SUCCEEDED")).toEqual([]);
  });

  it("counts a request as open until the state says it is done", () => {
    expect(REQUESTED.cancel.done("RUNNING")).toBe(false);
    expect(REQUESTED.cancel.done("CANCELED")).toBe(true);
    expect(REQUESTED.pause.done("WAITING")).toBe(false);
    expect(REQUESTED.retry.done("QUEUED")).toBe(true);
  });
});

describe("merge", () => {
  it("takes the event's moment as start or end, and drops a wait that is over", () => {
    const waiting = run({ state: "WAITING", wait: [{ path: "-1", kind: "site", reason: "", since: 1, place: 1 }], started_at: null });
    const running = merge(waiting, { type: "run", id: "01J0", state: "RUNNING", at: 120 });
    expect([running.wait, running.started_at, "at" in running, "type" in running]).toEqual([null, 120, false, false]);
    expect(merge(running, { state: "FAILED", at: 130 }).ended_at).toBe(130);
    expect(merge(run({ state: "FAILED", ended_at: 130 }), { state: "QUEUED", at: 140 }).ended_at).toBeNull();
  });

  it("reads the birth of a run from its id", () => {
    expect(bornAt("01ARZ3NDEKTSV4RRFFQ69G5FAV")).toBeCloseTo(1469922850.259, 3);
  });
});

describe("RunList", () => {
  function filled(size: number, held = false): RunList {
    const list = new RunList(size);
    list.held = held;
    list.show(
      Array.from({ length: size }, (_, i) => run({ id: `01J${9 - i}` })),
      everything,
      true,
    );
    return list;
  }

  it("changes known rows at once and lets new ones in when it settles", () => {
    const list = filled(3);
    expect(list.apply(batch({ type: "run", id: "01J8", state: "PAUSED" }, { type: "run", id: "01K0", state: "QUEUED", label: "New", version: 2 }))).toBe(true);
    expect(list.rows.value.map((row) => [row.id, row.state])).toEqual([
      ["01J9", "RUNNING"],
      ["01J8", "PAUSED"],
      ["01J7", "RUNNING"],
    ]);
    expect(list.fresh.value).toBe(1);
    list.settle();
    expect(list.rows.value.map((row) => row.id)).toEqual(["01K0", "01J9", "01J8"]);
    expect(list.fresh.value).toBe(0);
  });

  it("moves nothing while it is held, not even by a reload", () => {
    const list = filled(2);
    list.held = true;
    list.apply(batch({ type: "run", id: "01K0", state: "QUEUED" }));
    expect(list.settle()).toBe(false);
    list.show([run({ id: "01K0" }), run({ id: "01J9", priority: 7 })], everything, true);
    expect(list.rows.value.map((row) => [row.id, row.priority])).toEqual([
      ["01J9", 7],
      ["01J8", 0],
    ]);
  });

  it("lets rows go that the filter no longer wants, and asks for others in their place", () => {
    const filter = { states: ["RUNNING"], definition: "", order: "" };
    const list = new RunList(2);
    list.show([run({ id: "01J9" }), run({ id: "01J8" })], filter, true);
    list.apply(batch({ type: "run", id: "01J9", state: "SUCCEEDED" }, { type: "run", id: "01J1", state: "RUNNING" }));
    expect(list.settle()).toBe(true);
    expect(list.rows.value.map((row) => row.id)).toEqual(["01J8"]);
  });

  it("takes no new runs on an older page", () => {
    const list = new RunList(2);
    list.show([run({ id: "01J9" })], everything, false);
    list.apply(batch({ type: "run", id: "01K0", state: "RUNNING" }));
    list.settle();
    expect(list.rows.value.map((row) => row.id)).toEqual(["01J9"]);
  });

  it("filters by state, definition and order number", () => {
    expect(matches(run(), { states: ["WAITING", "RUNNING"], definition: "putaway", order: "" })).toBe(true);
    expect(matches(run(), { states: ["WAITING"], definition: "", order: "" })).toBe(false);
    expect(matches(run({ out_order_no: "SO-1" }), { states: [], definition: "", order: "SO-2" })).toBe(false);
  });
});
