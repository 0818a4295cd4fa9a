import { describe, expect, it } from "vitest";
import { type Sample, theilSen, verdict } from "../src/slope";

/** Samples each 10 s; noise is a fixed, seeded sequence. */
function series(minutes: number, perHour: number, noise = 0): Sample[] {
  let seed = 42;
  const random = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648 - 0.5;
  return Array.from({ length: minutes * 6 + 1 }, (_, i) => [1000 + i * 10, 70e6 + (perHour * i * 10) / 3600 + noise * random()] as const);
}

describe("verdict", () => {
  it("waits for enough time", () => {
    expect(verdict([]).kind).toBe("measuring");
    expect(verdict(series(1, 0)).sentence).toBe("measuring: a verdict in 1 min");
  });

  it("calls flat what is flat", () => {
    expect(verdict(series(30, 0.1e6)).sentence).toBe("flat: +0.1 MB/h over the last 30 min");
    expect(verdict(series(60, 0)).sentence).toBe("flat: 0 MB/h over the last 30 min");
    expect(verdict(series(5, 0.2e6)).sentence).toMatch(/^flat: \+0.02 MB over the last 5 min$/);
  });

  it("does not take noise for growth", () => {
    expect(verdict(series(30, 0, 6e6)).kind).toBe("flat");
    expect(verdict(series(3, 0, 6e6)).kind).toBe("flat");
  });

  it("sees growth through noise and says when the limit is reached", () => {
    const answer = verdict(series(30, 12e6, 2e6), { limitBytes: 100e6 });
    expect(answer.kind).toBe("growing");
    expect(answer.sentence).toMatch(/^growing: \+1[12] MB\/h over the last 30 min; at this rate the limit of 100 MB is reached in \d h/);
    expect(verdict(series(30, -12e6)).kind).toBe("falling");
  });

  it("gives a young server time to fill its caches, but not any time", () => {
    expect(verdict(series(4, 40e6)).sentence).toBe("settling: +2.7 MB over the last 4 min, as caches fill; a verdict takes 10 min");
    expect(verdict(series(4, 900e6)).kind).toBe("growing");
    expect(verdict(series(11, 40e6)).kind).toBe("growing");
  });

  it("is not moved by a spike", () => {
    const spiked = series(30, 0).map(([at, size], i) => [at, i === 90 ? size * 3 : size] as const);
    expect(verdict(spiked).kind).toBe("flat");
  });

  it("leaves the warm-up out", () => {
    const warm = series(30, 0).map(([at, size], i) => [at, i < 6 ? size - 30e6 : size] as const);
    expect(verdict(warm, { startedAt: 1000 }).sentence).toBe("flat: 0 MB/h over the last 29 min");
  });
});

describe("theilSen", () => {
  it("finds the slope and an interval around it", () => {
    const found = theilSen(series(10, 36e6));
    expect(found.slope).toBeCloseTo(10_000, 5);
    expect(found.low).toBeLessThanOrEqual(found.slope + 1e-6);
    expect(found.high).toBeGreaterThanOrEqual(found.slope - 1e-6);
  });
});
