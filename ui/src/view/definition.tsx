/** One definition: its block tree, its inputs, its JSON. */
import { useState } from "preact/hooks";
import { api, explain } from "../api";
import { confirm, notify } from "../notice";
import { Icon } from "../part/icon";
import { Facts, JsonView, Tabs, Trouble } from "../part/panel";
import { Moment } from "../part/time";
import { useResource } from "../resource";
import { toRuns } from "../route";
import { fieldsOf } from "../schema";
import { childrenOf, treeOfDefinition } from "../tree";
import type { Json, TreeNode } from "../type";
import { StartDialog } from "./start";

const MAX_NODES = 1000;
const TABS = [
  { id: "blocks", text: "Blocks" },
  { id: "inputs", text: "Inputs" },
  { id: "json", text: "JSON" },
];

export function DefinitionPanel({ name, onGone }: { name: string; onGone: () => void }) {
  const loaded = useResource((abort) => api.definition(name, abort), [name]);
  const [tab, setTab] = useState("blocks");
  const [starting, setStarting] = useState(false);
  const detail = loaded.data.value;
  const remove = async () => {
    const text = "The server refuses while stored runs or triggers refer to it.";
    if (!(await confirm({ title: `Delete ${name}?`, text, action: "Delete", danger: true }))) return;
    try {
      await api.deleteDefinition(name);
      notify("ok", `${name} is deleted.`);
      onGone();
    } catch (error) {
      notify("error", `${name} could not be deleted: ${explain(error)}`);
    }
  };
  if (loaded.error.value) return <Trouble error={loaded.error.value} onRetry={() => void loaded.reload()} />;
  if (!detail) return <p class="quiet">Loading…</p>;
  const root = treeOfDefinition(detail.definition.rootBlock);
  return (
    <div class="definition">
      <div class="side-head">
        <h2>{detail.label || detail.id}</h2>
        <div class="actions">
          <button type="button" class="primary" disabled={!detail.enabled} onClick={() => setStarting(true)}>
            <Icon name="running" />
            Start
          </button>
          <button type="button" class="danger-line" onClick={() => void remove()}>
            <Icon name="trash" />
            Delete
          </button>
        </div>
      </div>
      {detail.remark && <p>{detail.remark}</p>}
      <Facts
        items={[
          ["Id", <span class="mono">{detail.id}</span>],
          ["Version", detail.version],
          ["Changed", <Moment at={detail.updated_at} />],
          ["Hash", <span class="mono" title={detail.hash}>{detail.hash.slice(0, 10)}</span>],
          ["Runs", <a href={toRuns({ definition: detail.id })}>Show its runs</a>],
        ]}
      />
      <Tabs label="Part of the definition" tabs={TABS} shown={tab} onShow={setTab} />
      {tab === "blocks" && root && <Preview root={root} />}
      {tab === "inputs" && <Inputs schema={detail.definition.inputParams} />}
      {tab === "json" && <JsonView value={detail.definition} label="the definition" />}
      {starting && <StartDialog definition={detail.id} onClose={() => setStarting(false)} />}
    </div>
  );
}

/** The tree as nested lists: it is read, not walked. */
export function Preview({ root }: { root: TreeNode }) {
  const budget = { left: MAX_NODES };
  return (
    <ul class="preview">
      <PreviewNode node={root} branch={null} budget={budget} />
    </ul>
  );
}

function PreviewNode({ node, branch, budget }: { node: TreeNode; branch: string | null; budget: { left: number } }) {
  budget.left -= 1;
  if (budget.left === 0) return <li class="quiet">… and more blocks</li>;
  if (budget.left < 0) return null;
  const children = childrenOf(node);
  const single = Object.keys(node.children ?? {}).length === 1;
  return (
    <li>
      <span class="preview-line">
        {branch && <span class="branch">{branch}</span>}
        <strong>{node.name || (node.id === -1 ? "Start" : `block ${node.id}`)}</strong>
        <span class="quiet">{node.type}</span>
        {node.remark && <span class="quiet cut">{node.remark}</span>}
      </span>
      {children.length > 0 && (
        <ul>
          {children.map((child) => (
            <PreviewNode key={child.node.id} node={child.node} branch={single && child.branch === "default" ? null : child.branch} budget={budget} />
          ))}
        </ul>
      )}
    </li>
  );
}

function Inputs({ schema }: { schema: Json | undefined }) {
  const fields = fieldsOf(schema);
  if (fields === null) return <JsonView value={schema} label="the inputs" />;
  if (fields.length === 0) return <p class="quiet">It takes no inputs.</p>;
  return (
    <table class="table">
      <thead>
        <tr>
          <th>Input</th>
          <th>Kind</th>
          <th>Default</th>
          <th>Meaning</th>
        </tr>
      </thead>
      <tbody>
        {fields.map((field) => (
          <tr key={field.name}>
            <th scope="row">
              {field.name} {field.required && <em>required</em>}
            </th>
            <td>{field.kind}</td>
            <td class="mono">{field.initial || "–"}</td>
            <td>{[field.label !== field.name && field.label, field.help].filter(Boolean).join(": ")}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
