/** The page is left open for weeks: a hundred thousand events must leave nothing behind but what is shown. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { pageLedger } from "../src/bounded";
import type { Batch, StreamEvent } from "../src/event";
import { RunList } from "../src/run";
import { applyStatus, samples } from "../src/status";
import { Stream } from "../src/stream";
import { StepIndex } from "../src/tree";
import type { Site } from "../src/type";
import { patched } from "../src/site";

const EVENTS = 100_000;
const STATES = ["QUEUED", "RUNNING", "WAITING", "SUCCEEDED", "FAILED"] as const;
const PAGE = 50;
const SITES = 200;

function eventAt(i: number): StreamEvent {
  const id = `01J${String(i).padStart(23, "0")}`;
  switch (i % 4) {
    case 0:
      return { type: "run", id, state: STATES[i % STATES.length] as (typeof STATES)[number], label: "Put away", version: 1 };
    case 1:
      return { type: "block", run_id: "shown", path: `-1/3[${i}]/5`, name: "b", state: "SUCCEEDED" };
    case 2:
      return { type: "site", id: `S${i}`, group: "BUF", filled: true } as StreamEvent;
    default:
      return { type: "status", rss_bytes: 7e7 + i, active: 1, pending: 2, waiting: 3, rate_per_s: 4 };
  }
}

function page() {
  let draw: (() => void) | null = null;
  const stream = new Stream((callback) => {
    draw = callback;
    return 1;
  });
  const list = new RunList(PAGE);
  list.show([], { states: [], definition: "", order: "" }, true);
  const steps = new StepIndex([], 1000);
  let sites: readonly Site[] = [];
  let missed = 0;
  stream.listen((batch: Batch) => {
    missed += batch.missed;
    list.apply(batch);
    applyStatus(batch);
    sites = patched(sites, "site", batch, SITES);
    for (const event of batch.events) if (event.type === "block") steps.put(event);
  });
  stream.watch(["run", "block", "site"], "shown");
  const frame = () => {
    const callback = draw;
    draw = null;
    callback?.();
  };
  return { stream, list, steps, frame, sites: () => sites, missed: () => missed };
}

afterEach(() => vi.useRealTimers());

describe("a page that is left open", () => {
  it("keeps only what it shows after 100,000 events", () => {
    vi.useFakeTimers();
    const { stream, list, steps, frame, sites, missed } = page();
    for (let i = 0; i < EVENTS; i++) {
      stream.put(eventAt(i));
      if (i % 500 === 499) {
        vi.advanceTimersByTime(2000);
        frame();
        list.settle();
      }
    }
    expect(missed()).toBe(0);
    expect(list.rows.value).toHaveLength(PAGE);
    expect(list.rows.value[0]?.id).toContain("99996");
    expect(list.item().size).toBe(PAGE);
    expect(steps.size).toBe(1000);
    expect(steps.dropped).toBe(EVENTS / 4 - 1000);
    expect(sites()).toHaveLength(SITES);
    expect(samples.value.length).toBeLessThanOrEqual(720);
    expect(samples.value.length).toBeGreaterThan(100);
    for (const item of pageLedger()) expect(item.size, item.name).toBeLessThanOrEqual(item.bound);
  });

  it("holds a bounded number of events while its tab is hidden, then asks for what it lost", () => {
    const { stream, list, frame, missed } = page();
    for (let i = 0; i < EVENTS; i++) stream.put(eventAt(i));
    expect(stream.pending).toBe(2000);
    expect(list.rows.value).toHaveLength(0);
    frame();
    expect(stream.pending).toBe(0);
    // All the status events are one; whatever else did not fit has to be loaded again.
    expect(missed()).toBe((EVENTS / 4) * 3 + 1 - 2000);
  });

  it("takes block events of the shown run only", () => {
    const { stream, steps, frame } = page();
    stream.put({ type: "block", run_id: "other", path: "-1", name: "", state: "RUNNING" });
    frame();
    expect(steps.size).toBe(0);
  });
});
