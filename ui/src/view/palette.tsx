/** The blocks that definitions are made of, with their parameters and outputs. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { plural } from "../format";
import { Card, Empty, Trouble } from "../part/panel";
import { useResource } from "../resource";
import type { BlockKind, Json } from "../type";

const FAMILIES: Record<string, string> = {
  flow: "Flow",
  site: "Sites",
  robot: "Robots",
  task: "Tasks",
  data: "Data",
  http: "HTTP",
  sql: "SQL",
};

const RECOVERY: Record<string, string> = {
  rerun: "after a crash it simply runs again",
  reattach: "after a crash it looks its order up and goes on",
  operator: "after a crash an operator decides",
};

export function Palette() {
  const kinds = useResource<BlockKind[]>(async (abort) => (await api.palette(abort)).items, []);
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const found = (kinds.data.value ?? []).filter((kind) => `${kind.type} ${kind.family} ${kind.description}`.toLowerCase().includes(wanted));
  const order = Object.keys(FAMILIES);
  const families = [...new Set(found.map((kind) => kind.family))].sort((a, b) => rank(order, a) - rank(order, b));
  return (
    <>
      <div class="filter">
        <input type="search" aria-label="Search blocks" placeholder="Search blocks" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        <span class="quiet">{kinds.data.value && plural(found.length, "block")}</span>
      </div>
      {kinds.error.value && <Trouble error={kinds.error.value} onRetry={() => void kinds.reload()} />}
      {kinds.data.value && found.length === 0 && <Empty icon="definitions">No block is called or described so.</Empty>}
      {families.map((family) => (
        <Card key={family} title={FAMILIES[family] ?? family} class="family">
          {found
            .filter((kind) => kind.family === family)
            .map((kind) => (
              <Kind key={kind.type} kind={kind} />
            ))}
        </Card>
      ))}
    </>
  );
}

/** Families that we do not know come last. */
function rank(order: readonly string[], family: string): number {
  const at = order.indexOf(family);
  return at < 0 ? order.length : at;
}

function Kind({ kind }: { kind: BlockKind }) {
  return (
    <details class="kind">
      <summary>
        <strong>{kind.type}</strong>
        <span class="quiet">{kind.description}</span>
      </summary>
      {kind.branches.length > 0 && (
        <p>
          Branches: <code>{kind.branches.join(", ")}</code>
        </p>
      )}
      <Properties title="Parameters" schema={kind.params} />
      <Properties title="Outputs" schema={kind.outputs} />
      <p class="quiet">Recovery: {RECOVERY[kind.recovery] ?? kind.recovery}.</p>
    </details>
  );
}

interface Property {
  type?: Json;
  title?: Json;
  description?: Json;
  default?: Json;
  enum?: Json;
  anyOf?: { type?: string }[];
}

function Properties({ title, schema }: { title: string; schema: Json }) {
  const { properties = {}, required = [] } = (schema ?? {}) as { properties?: Record<string, Property>; required?: string[] };
  const entries = Object.entries(properties);
  if (entries.length === 0) return null;
  return (
    <table class="table small">
      <thead>
        <tr>
          <th>{title}</th>
          <th>Type</th>
          <th>Default</th>
          <th>Meaning</th>
        </tr>
      </thead>
      <tbody>
        {entries.map(([name, property]) => (
          <tr key={name}>
            <th scope="row">
              {name} {required.includes(name) && <em>required</em>}
            </th>
            <td>{typeOf(property)}</td>
            <td class="mono">{property.default === undefined ? "–" : JSON.stringify(property.default)}</td>
            <td>{[property.description, Array.isArray(property.enum) && property.enum.join(" | ")].filter(Boolean).join(" ")}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function typeOf(property: Property): string {
  if (property.anyOf) return property.anyOf.map((one) => one.type ?? "any").join(" or ");
  return Array.isArray(property.type) ? property.type.join(" or ") : String(property.type ?? "any");
}
