/** The form of a definition's inputs: fields from its `inputParams`, values for the server, errors at their fields. */
import type { Json, Problem } from "./type";

export type FieldKind = "text" | "boolean" | "integer" | "number" | "json";

export interface Field {
  name: string;
  label: string;
  kind: FieldKind;
  required: boolean;
  initial: string;
  help: string;
  choices: string[];
}

const KINDS: Record<string, FieldKind> = {
  String: "text",
  Boolean: "boolean",
  Long: "integer",
  Double: "number",
  JSONObject: "json",
  JSONArray: "json",
  string: "text",
  boolean: "boolean",
  integer: "integer",
  number: "number",
  object: "json",
  array: "json",
};

type Fields = { [key: string]: Json };

/** Fields of the format's list `[{name, type, label, required, defaultValue, remark}]` or of a JSON schema's properties. */
export function fieldsOf(inputs: Json | undefined): Field[] | null {
  if (inputs == null) return [];
  if (Array.isArray(inputs)) return inputs.every(isObject) ? inputs.map((input) => field(String(input.name ?? ""), input, Boolean(input.required))) : null;
  if (!isObject(inputs) || !isObject(inputs.properties ?? null)) return null;
  const required = Array.isArray(inputs.required) ? inputs.required : [];
  return Object.entries(inputs.properties as Fields).map(([name, spec]) => field(name, isObject(spec) ? spec : {}, required.includes(name)));
}

function field(name: string, spec: Fields, required: boolean): Field {
  const initial = spec.defaultValue ?? spec.default ?? null;
  const choices = Array.isArray(spec.enum) ? spec.enum : Array.isArray(spec.options) ? spec.options : [];
  return {
    name,
    label: text(spec.label) || text(spec.title) || name,
    kind: KINDS[String(spec.type)] ?? "text",
    required,
    initial: initial === null ? "" : typeof initial === "string" ? initial : JSON.stringify(initial),
    help: text(spec.remark) || text(spec.description),
    choices: choices.map((choice) => (isObject(choice) ? text(choice.value) : text(choice))).filter(Boolean),
  };
}

function isObject(value: Json): value is Fields {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function text(value: Json | undefined): string {
  return value == null ? "" : typeof value === "string" ? value : String(value);
}

/** A field's text as the value to send. Blank means "not given". Throws an Error that says what is wrong. */
export function valueOf(field: Field, raw: string): Json | undefined {
  const given = raw.trim();
  if (given === "") {
    if (field.required) throw new Error("is required");
    return undefined;
  }
  switch (field.kind) {
    case "boolean":
      return given === "true";
    case "integer":
      if (!/^[+-]?\d+$/.test(given)) throw new Error("must be a whole number");
      if (!Number.isSafeInteger(Number(given))) throw new Error("is too large for an exact number");
      return Number(given);
    case "number":
      if (!Number.isFinite(Number(given))) throw new Error("must be a number");
      return Number(given);
    case "json":
      return parseJson(given);
    default:
      return raw;
  }
}

export function parseJson(given: string): Json {
  try {
    return JSON.parse(given) as Json;
  } catch (error) {
    throw new Error(`is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export function inputsOf(fields: readonly Field[], raw: Record<string, string>): { inputs: Fields; errors: Record<string, string> } {
  const inputs: Fields = {};
  const errors: Record<string, string> = {};
  for (const item of fields) {
    try {
      const value = valueOf(item, raw[item.name] ?? "");
      if (value !== undefined) inputs[item.name] = value;
    } catch (error) {
      errors[item.name] = error instanceof Error ? error.message : String(error);
    }
  }
  return { inputs, errors };
}

/** Share the server's problems out to the fields their paths name; the rest is shown above the form. */
export function problemsByField(problems: readonly Problem[], names: readonly string[]): { byField: Record<string, string>; rest: Problem[] } {
  const byField: Record<string, string> = {};
  const rest: Problem[] = [];
  for (const problem of problems) {
    const words = problem.path.split(/[^\p{L}\p{N}_-]+/u);
    const name = names.find((candidate) => words.includes(candidate));
    if (name === undefined) rest.push(problem);
    else byField[name] = [byField[name], problem.message, problem.hint].filter(Boolean).join(". ");
  }
  return { byField, rest };
}
