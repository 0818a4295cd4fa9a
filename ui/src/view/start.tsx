/** Start a run: choose a definition, fill the form made from its inputs, see the server's objections at their fields. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { api, ApiError, explain } from "../api";
import { notify } from "../notice";
import { Dialog } from "../part/dialog";
import { FormField } from "../part/form";
import { Trouble } from "../part/panel";
import { useResource } from "../resource";
import { go } from "../route";
import { type Field, fieldsOf, inputsOf, parseJson, problemsByField } from "../schema";
import type { DefinitionDetail, Json, Problem, Submission } from "../type";

const MAX_DEFINITIONS = 200;

const OPTIONS: Field[] = [
  { name: "priority", label: "Priority", kind: "integer", required: false, initial: "", help: "Higher goes first; 0 when empty.", choices: [] },
  { name: "delay_s", label: "Start in (seconds)", kind: "number", required: false, initial: "", help: "At once when empty.", choices: [] },
  { name: "idempotency_key", label: "Order number", kind: "text", required: false, initial: "", help: "The same number never starts a second run.", choices: [] },
  { name: "timeout_s", label: "Time-out (seconds)", kind: "number", required: false, initial: "", help: "No limit when empty.", choices: [] },
];

type Texts = Record<string, string>;

interface Errors {
  values: Texts;
  how: Texts;
  json: string;
  rest: string[];
}

export function StartDialog({ definition, onClose }: { definition: string; onClose: () => void }) {
  const [chosen, setChosen] = useState(definition);
  const all = useResource((abort) => api.definitions(null, MAX_DEFINITIONS, abort), []);
  const names = all.data.value?.items ?? [];
  useEffect(() => {
    const first = names.find((info) => info.enabled);
    if (first) setChosen((before) => before || first.id);
  }, [names]);
  return (
    <Dialog title="Start a run" onClose={onClose} wide>
      <div class="dialog-body">
        {all.error.value && <Trouble error={all.error.value} />}
        <div class="field">
          <label for="start-definition">Definition</label>
          <select id="start-definition" value={chosen} onChange={(event) => setChosen(event.currentTarget.value)}>
            {chosen !== "" && !names.some((info) => info.id === chosen) && <option value={chosen}>{chosen}</option>}
            {names.map((info) => (
              <option key={info.id} value={info.id} disabled={!info.enabled}>
                {info.label || info.id}
                {info.enabled ? "" : " (disabled)"}
              </option>
            ))}
          </select>
          <span class="field-note">{names.find((info) => info.id === chosen)?.remark ?? ""}</span>
        </div>
        {chosen !== "" && <StartForm key={chosen} definition={chosen} onClose={onClose} />}
      </div>
    </Dialog>
  );
}

function StartForm({ definition, onClose }: { definition: string; onClose: () => void }) {
  const loaded = useResource<DefinitionDetail>((abort) => api.definition(definition, abort), [definition]);
  const detail = loaded.data.value;
  if (loaded.error.value) return <Trouble error={loaded.error.value} onRetry={() => void loaded.reload()} />;
  if (!detail) return <p class="quiet">Loading its inputs…</p>;
  return <Inputs definition={definition} schema={detail.definition.inputParams} onClose={onClose} />;
}

interface Draft {
  asJson: boolean;
  json: string;
  values: Texts;
  how: Texts;
}

function useDraft(fields: readonly Field[] | null) {
  const [draft, setDraft] = useState<Draft>(() => ({
    asJson: fields === null,
    json: "{}",
    values: Object.fromEntries((fields ?? []).map((field) => [field.name, field.initial])),
    how: {},
  }));
  const [errors, setErrors] = useState<Errors>({ values: {}, how: {}, json: "", rest: [] });
  const set = (part: "values" | "how", name: string) => (value: string) => {
    setDraft({ ...draft, [part]: { ...draft[part], [name]: value } });
    const { [name]: _gone, ...others } = errors[part];
    setErrors({ ...errors, [part]: others });
  };
  return { draft, setDraft, errors, setErrors, set };
}

function Inputs({ definition, schema, onClose }: { definition: string; schema: Json | undefined; onClose: () => void }) {
  const fields = useMemo(() => fieldsOf(schema), [schema]);
  const { draft, setDraft, errors, setErrors, set } = useDraft(fields);
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    const form = collect(definition, fields ?? [], draft);
    setErrors(form.errors);
    if (!form.ok) return;
    setBusy(true);
    try {
      const run = await api.submit(form.body);
      notify("ok", "The run is accepted and stored.");
      onClose();
      go(["runs", run.id]);
    } catch (error) {
      setErrors(refusal(error, draft.asJson ? [] : (fields ?? [])));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      {errors.rest.length > 0 && <Trouble error={errors.rest.join(" · ")} />}
      <fieldset class="fields">
        <legend>Inputs</legend>
        {draft.asJson ? (
          <JsonField text={draft.json} error={errors.json} onChange={(json) => setDraft({ ...draft, json })} />
        ) : (
          fields?.map((field) => (
            <FormField key={field.name} prefix="input" field={field} value={draft.values[field.name] ?? ""} error={errors.values[field.name]} onChange={set("values", field.name)} />
          ))
        )}
        {fields?.length === 0 && !draft.asJson && <p class="quiet">This definition takes no inputs.</p>}
      </fieldset>
      <fieldset class="fields">
        <legend>How</legend>
        {OPTIONS.map((field) => (
          <FormField key={field.name} prefix="how" field={field} value={draft.how[field.name] ?? ""} error={errors.how[field.name]} onChange={set("how", field.name)} />
        ))}
      </fieldset>
      <div class="dialog-foot">
        {fields !== null && (
          <button type="button" class="plain" onClick={() => setDraft(draft.asJson ? { ...draft, asJson: false } : asJson(draft, fields))}>
            {draft.asJson ? "Fill the form" : "Write JSON"}
          </button>
        )}
        <button type="button" onClick={onClose}>
          Close
        </button>
        <button type="submit" class="primary" disabled={busy}>
          {busy ? "Starting…" : "Start"}
        </button>
      </div>
    </form>
  );
}

function JsonField({ text, error, onChange }: { text: string; error: string; onChange: (text: string) => void }) {
  return (
    <div class="field whole">
      <label for="start-json">Inputs as JSON</label>
      <textarea id="start-json" rows={8} spellcheck={false} value={text} aria-invalid={error !== ""} onInput={(event) => onChange(event.currentTarget.value)} />
      <span class="field-note" data-error={error !== ""}>
        {error}
      </span>
    </div>
  );
}

function asJson(draft: Draft, fields: readonly Field[]): Draft {
  return { ...draft, asJson: true, json: JSON.stringify(inputsOf(fields, draft.values).inputs, null, 2) };
}

/** What to send, and what is wrong with it before it is sent. */
function collect(definition: string, fields: readonly Field[], draft: Draft): { ok: boolean; body: Submission; errors: Errors } {
  const how = inputsOf(OPTIONS, draft.how);
  const errors: Errors = { values: {}, how: how.errors, json: "", rest: [] };
  let inputs: { [key: string]: Json } = {};
  if (draft.asJson) {
    try {
      inputs = parseJson(draft.json || "{}") as { [key: string]: Json };
    } catch (error) {
      errors.json = explain(error);
    }
  } else {
    const given = inputsOf(fields, draft.values);
    inputs = given.inputs;
    errors.values = given.errors;
  }
  const ok = errors.json === "" && Object.keys({ ...errors.values, ...errors.how }).length === 0;
  return { ok, body: { definition, inputs, ...how.inputs }, errors };
}

/** A refused definition or input lists its problems; a refused body names one place. */
function problemsOf(error: ApiError): Problem[] {
  if (error.problems.length > 0 || error.where === null) return error.problems;
  return [{ path: error.where, message: error.message }];
}

/** The server's objections, each at the field that its path names. */
function refusal(error: unknown, fields: readonly Field[]): Errors {
  const problems = error instanceof ApiError ? problemsOf(error) : [];
  const values = problemsByField(problems, fields.map((field) => field.name));
  const how = problemsByField(values.rest, OPTIONS.map((field) => field.name));
  const rest = how.rest.map((problem) => [problem.path, problem.message].filter(Boolean).join(": "));
  return { values: values.byField, how: how.byField, json: "", rest: problems.length > 0 ? rest : [explain(error)] };
}
