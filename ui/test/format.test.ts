import { describe, expect, it } from "vitest";
import { age, bytes, count, duration, ordinal, percent, plural, short, shortId, signedMb } from "../src/format";

describe("format", () => {
  it.each([
    [0, "0 ms"],
    [0.8504, "850 ms"],
    [1.24, "1.2 s"],
    [9.97, "10 s"],
    [59.7, "1 min"],
    [200, "3 min 20 s"],
    [3599.6, "1 h"],
    [7500, "2 h 5 min"],
    [273_600, "3 d 4 h"],
    [-5, "0 ms"],
    [null, "–"],
  ])("tells %s seconds as %s", (seconds, text) => expect(duration(seconds)).toBe(text));

  it("tells ages in whole seconds", () => {
    expect([age(0.4), age(3.2), age(59.4), age(61), age(-3)]).toEqual(["0 s", "3 s", "59 s", "1 min 1 s", "0 s"]);
  });

  it("tells sizes", () => {
    expect([bytes(0), bytes(999), bytes(1000), bytes(72_460_000), bytes(536e6), bytes(-2e6), bytes(null)]).toEqual(["0 B", "999 B", "1.0 kB", "72.5 MB", "536 MB", "−2.0 MB", "–"]);
    expect([signedMb(0), signedMb(120_000), signedMb(-12e6), signedMb(20_000), signedMb(200)]).toEqual(["0 MB", "+0.1 MB", "−12 MB", "+0.02 MB", "0 MB"]);
  });

  it("tells numbers", () => {
    expect([count(1234567), count(null), short(0), short(0.5), short(12.34), short(456.7)]).toEqual(["1,234,567", "–", "0", "0.5", "12.3", "457"]);
    expect([1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal)).toEqual(["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]);
    expect([plural(1, "run"), plural(2, "run"), percent(1, 1000), percent(99.9, 100), percent(1, 0)]).toEqual(["1 run", "2 runs", "< 1 %", "99 %", "–"]);
    expect([shortId("01ARZ3NDEKTSV4RRFFQ69G5FAV"), shortId("abc")]).toEqual(["…Q69G5FAV", "abc"]);
  });
});
