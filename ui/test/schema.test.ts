import { describe, expect, it } from "vitest";
import { fieldsOf, inputsOf, problemsByField } from "../src/schema";
import type { Json } from "../src/type";

const list: Json = [
  { name: "from", type: "String", label: "From site", required: true, remark: "A site of IN." },
  { name: "count", type: "Long", defaultValue: "1" },
  { name: "weight", type: "Double" },
  { name: "urgent", type: "Boolean" },
  { name: "attrs", type: "JSONObject", defaultValue: { a: 1 } },
];

describe("fieldsOf", () => {
  it("reads the format's list", () => {
    const fields = fieldsOf(list);
    expect(fields?.map((field) => [field.name, field.kind, field.required, field.initial])).toEqual([
      ["from", "text", true, ""],
      ["count", "integer", false, "1"],
      ["weight", "number", false, ""],
      ["urgent", "boolean", false, ""],
      ["attrs", "json", false, '{"a":1}'],
    ]);
    expect(fields?.[0]).toMatchObject({ label: "From site", help: "A site of IN." });
  });

  it("reads a JSON schema, takes nothing for no inputs, and gives up on what it does not know", () => {
    const schema = { properties: { mode: { type: "string", enum: ["fast", "slow"], title: "Mode" } }, required: ["mode"] };
    expect(fieldsOf(schema)).toMatchObject([{ name: "mode", label: "Mode", required: true, choices: ["fast", "slow"] }]);
    expect(fieldsOf(null)).toEqual([]);
    expect(fieldsOf("inputs")).toBeNull();
    expect(fieldsOf([1, 2])).toBeNull();
  });
});

describe("inputsOf", () => {
  const fields = fieldsOf(list) ?? [];

  it("sends values of the right kinds and leaves blanks out", () => {
    const raw = { from: " IN_1", count: "3", weight: "2.5", urgent: "false", attrs: "" };
    expect(inputsOf(fields, raw)).toEqual({ inputs: { from: " IN_1", count: 3, weight: 2.5, urgent: false }, errors: {} });
  });

  it("says at each field what is wrong", () => {
    const { errors } = inputsOf(fields, { from: "", count: "1.5", weight: "much", attrs: "{" });
    expect(errors).toMatchObject({ from: "is required", count: "must be a whole number", weight: "must be a number" });
    expect(errors.attrs).toMatch(/^is not JSON/);
    expect(inputsOf(fields, { from: "x", count: "99999999999999999999" }).errors.count).toMatch(/too large/);
  });
});

describe("problemsByField", () => {
  it("brings the server's problems to their fields however the path is written", () => {
    const problems = [
      { path: "/inputs/count", message: "is too many", hint: "at most 10" },
      { path: "$.inputs.from", message: "no such site" },
      { path: "taskInputs['urgent']", message: "is odd" },
      { path: "inputs", message: "are not an object" },
    ];
    expect(problemsByField(problems, ["from", "count", "urgent"])).toEqual({
      byField: { count: "is too many. at most 10", from: "no such site", urgent: "is odd" },
      rest: [{ path: "inputs", message: "are not an object" }],
    });
  });
});
