import { describe, expect, it } from "vitest";
import { Coalescer, MessageParser, type StreamEvent } from "../src/event";

describe("MessageParser", () => {
  it("reads messages however the text is cut", () => {
    const text = 'retry: 1000\n\nid: a-1\nevent: run\ndata: {"id":"x"}\n\n: alive\n\nid: a-2\nevent: gap\r\ndata: 1\ndata: 2\r\n\r\n';
    for (const size of [1, 2, 3, 7, text.length]) {
      const parser = new MessageParser();
      const messages = [];
      for (let at = 0; at < text.length; at += size) messages.push(...parser.push(text.slice(at, at + size)));
      expect(messages).toEqual([
        { id: "a-1", event: "run", data: '{"id":"x"}' },
        { id: "a-2", event: "gap", data: "1\n2" },
      ]);
    }
  });

  it("keeps the last id for messages without one", () => {
    const parser = new MessageParser();
    expect(parser.push("id: 7\ndata: a\n\ndata: b\n\n").map((message) => message.id)).toEqual(["7", "7"]);
  });

  it("refuses a line that never ends", () => {
    const parser = new MessageParser();
    expect(() => {
      for (let i = 0; i < 300; i++) parser.push("x".repeat(10_000));
    }).toThrow(/longer than 1 MB/);
  });

  it("refuses a message that never ends", () => {
    const parser = new MessageParser();
    expect(() => {
      for (let i = 0; i < 300; i++) parser.push(`data: ${"x".repeat(10_000)}\n`);
    }).toThrow(/longer than 1 MB/);
  });
});

describe("Coalescer", () => {
  it("draws a thing that changed often once, with all its changes", () => {
    const coalescer = new Coalescer();
    coalescer.put({ type: "run", id: "r", state: "RUNNING", label: "Put away" });
    coalescer.put({ type: "run", id: "r", state: "SUCCEEDED" });
    coalescer.put({ type: "block", run_id: "r", path: "-1", name: "", state: "RUNNING" });
    expect(coalescer.drain()).toEqual({
      events: [
        { type: "run", id: "r", state: "SUCCEEDED", label: "Put away" },
        { type: "block", run_id: "r", path: "-1", name: "", state: "RUNNING" },
      ],
      missed: 0,
    });
    expect(coalescer.drain()).toEqual({ events: [], missed: 0 });
  });

  it("stays within its bound and says what it lost", () => {
    const coalescer = new Coalescer(100);
    for (let i = 0; i < 5000; i++) coalescer.put({ type: "run", id: `run ${i}`, state: "RUNNING" });
    expect(coalescer.size).toBe(100);
    expect(coalescer.drain().missed).toBe(4900);
  });

  it("counts gaps of the server, also those without a number", () => {
    const coalescer = new Coalescer();
    const gaps: StreamEvent[] = [
      { type: "gap", missed: 3 },
      { type: "gap", missed: null },
    ];
    gaps.forEach((gap) => coalescer.put(gap));
    expect(coalescer.drain()).toEqual({ events: [], missed: 4 });
  });
});
