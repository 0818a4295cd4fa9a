/** Bring a definition: drop its file or paste it, see every problem with its path, save it when there are none. */
import { useState } from "preact/hooks";
import { api, ApiError, explain } from "../api";
import { plural } from "../format";
import { notify } from "../notice";
import { Icon } from "../part/icon";
import { Card, Empty, Trouble } from "../part/panel";
import { go } from "../route";
import { parseJson } from "../schema";
import { treeOfDefinition } from "../tree";
import type { Json, Problem, Validation } from "../type";
import { Preview } from "./definition";

const MAX_FILE_BYTES = 10_000_000;

export function Upload() {
  const [text, setText] = useState("");
  const [result, setResult] = useState<Validation | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const attempt = async (work: () => Promise<void>) => {
    setBusy(true);
    setTrouble(null);
    try {
      await work();
    } catch (error) {
      const problems = error instanceof ApiError ? error.problems : [];
      if (problems.length > 0) setResult({ ok: false, problems, flow: null });
      else setTrouble(explain(error));
    } finally {
      setBusy(false);
    }
  };
  const check = (given: string) => attempt(async () => setResult(await api.validate(given)));
  const take = (given: string) => {
    setText(given);
    setResult(null);
    if (given.trim()) void check(given);
  };
  const save = () =>
    attempt(async () => {
      const saved = await api.saveDefinition(text);
      notify("ok", `${saved.label || saved.id} is stored as version ${saved.version}.`);
      go(["definitions", saved.id]);
    });
  return (
    <div class="split even">
      <Card title="Definition" note="JSON in the documented format">
        <DropZone onText={take} onTrouble={setTrouble} />
        <label class="field">
          <span>or paste it here</span>
          <textarea
            class="code"
            rows={14}
            spellcheck={false}
            value={text}
            onInput={(event) => {
              setText(event.currentTarget.value);
              setResult(null);
            }}
          />
        </label>
        <div class="actions">
          <button type="button" disabled={busy || text.trim() === ""} onClick={() => void check(text)}>
            Check
          </button>
          <button type="button" class="primary" disabled={busy || result?.ok !== true} onClick={() => void save()}>
            Save
          </button>
          <span class="quiet">{result?.ok === true ? "" : "It can be saved when the check finds nothing."}</span>
        </div>
      </Card>
      <Card title="Result" note={result ? verdictOf(result) : "Nothing checked yet."}>
        {trouble && <Trouble error={trouble} />}
        {!result && !trouble && <Empty icon="file">Every problem is listed here with the path of its block.</Empty>}
        {result && <Problems problems={[...result.problems, ...(result.flow?.warnings ?? [])]} />}
        {result?.ok && <Draft text={text} />}
      </Card>
    </div>
  );
}

function verdictOf(result: Validation): string {
  if (!result.ok) return `${plural(result.problems.length, "problem")} to solve before it can be saved.`;
  const flow = result.flow;
  return flow ? `Good: ${plural(flow.nodes, "block")}, ${flow.depth} deep.` : "Good.";
}

function DropZone({ onText, onTrouble }: { onText: (text: string) => void; onTrouble: (text: string) => void }) {
  const [over, setOver] = useState(false);
  const read = async (file: File | undefined) => {
    setOver(false);
    if (!file) return;
    if (file.size > MAX_FILE_BYTES) onTrouble(`${file.name} is larger than 10 MB.`);
    else onText(await file.text());
  };
  return (
    <label
      class="drop"
      data-over={over}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        void read(event.dataTransfer?.files[0]);
      }}
    >
      <Icon name="upload" size={24} />
      <span>Drop a JSON file here, or choose one</span>
      <input type="file" accept=".json,application/json" onChange={(event) => void read(event.currentTarget.files?.[0])} />
    </label>
  );
}

function Problems({ problems }: { problems: readonly Problem[] }) {
  return (
    <ol class="problems">
      {problems.map((problem, at) => (
        <li key={at}>
          <code>{problem.path || "the whole"}</code>
          <span>{problem.message}</span>
          {problem.hint && <span class="quiet">{problem.hint}</span>}
        </li>
      ))}
    </ol>
  );
}

function Draft({ text }: { text: string }) {
  let root: Json | undefined;
  try {
    root = (parseJson(text) as { rootBlock?: Json }).rootBlock;
  } catch {
    return null;
  }
  const tree = treeOfDefinition(root);
  return tree && <Preview root={tree} />;
}
