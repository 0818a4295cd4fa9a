/** What holds the server's memory: types and containers with their past, and from any object to its neighbours. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, explain } from "../api";
import { bytes, count, duration, short } from "../format";
import { notify } from "../notice";
import { Card, Empty, Facts, PageHead, Trouble } from "../part/panel";
import { Spark } from "../part/spark";
import { useResource } from "../resource";
import { href, route, setQuery } from "../route";
import { stream } from "../stream";
import type { HeapNode, HeapRow, MemoryFigures, Neighbour } from "../type";

const EVERY_MS = 3000;
const FLOORS = [0, 100, 1_000, 10_000, 100_000];
const SHOWN = 30;

/** Objects can be looked at while a graph of them is open in the server. */
const graphTaken = signal<string | null>(null);

export function MemoryView() {
  useEffect(() => stream.watch([]), []);
  const { object, search = "", floor = "0" } = route.value.query;
  const heap = useResource((abort) => api.heap(Number(floor), search, abort), [floor, search], { everyMs: EVERY_MS });
  const figures = useResource((abort) => api.memory(abort), [], { everyMs: 10_000 });
  const found = heap.data.value;
  return (
    <div class="view">
      <PageHead
        title="Memory"
        note={found ? `Look ${count(found.looks)} at this process; each one stops it for ${duration(found.cost_s)}.` : "Looking at the heap…"}
      >
        <button type="button" onClick={() => void act("collect")}>
          Collect garbage
        </button>
        <button type="button" onClick={() => void act("trim")}>
          Trim
        </button>
      </PageHead>
      {heap.error.value && <Trouble error={heap.error.value} onRetry={() => void heap.reload()} />}
      {object && <ObjectCard id={object} />}
      <Figures figures={figures.data.value} />
      <div class="filter">
        <label>
          Type <input type="search" value={search} placeholder="part of its name" onChange={(event) => setQuery({ search: event.currentTarget.value })} />
        </label>
        <label>
          Floor{" "}
          <select value={floor} onChange={(event) => setQuery({ floor: event.currentTarget.value })}>
            {FLOORS.map((least) => (
              <option key={least} value={String(least)}>
                {count(least)}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Card title="Types" note="those that grew most since the first look come first">
        {found && <Rows rows={found.types} entries="Objects" />}
      </Card>
      <Card title="Containers" note="lists, dicts, sets, tuples and deques of 100 entries or more; choose one to see who holds it">
        {found && <Rows rows={found.containers} entries="Entries" />}
      </Card>
    </div>
  );
}

function Figures({ figures }: { figures: MemoryFigures | null }) {
  if (!figures) return null;
  const { memory, malloc, collector, blocks, tasks } = figures.usage;
  return (
    <Card title="Figures">
      <Facts
        items={[
          ["RSS", bytes(memory.rss)],
          ["PSS", bytes(memory.pss)],
          ["USS", bytes(memory.uss)],
          ["Free inside malloc", bytes(malloc?.free)],
          ["Python's blocks", count(blocks)],
          ["Collector", collector.enabled ? `on, ${count(collector.frozen)} frozen` : "off"],
          ["asyncio tasks", count(tasks)],
          ["Threads", count(memory.threads)],
          ...figures.pools.map((pool): [string, string] => [
            `Pool ${pool.database}`,
            `${count(pool.checked_out)} in use, ${count(pool.idle)} idle of ${count(pool.size)} + ${count(pool.max_overflow)}`,
          ]),
        ]}
      />
    </Card>
  );
}

function Rows({ rows, entries }: { rows: readonly HeapRow[]; entries: string }) {
  if (rows.length === 0) return <Empty>Nothing is that large.</Empty>;
  return (
    <div class="scroll">
      <table class="table">
        <thead>
          <tr>
            <th>Type</th>
            <th class="number">{entries}</th>
            <th class="number">Grown</th>
            <th class="number">Bytes</th>
            <th>So far</th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, SHOWN).map((row) => (
            <tr key={row.id || row.type}>
              <th scope="row" class="mono">
                {row.id ? (
                  <a href={href(["memory"], { ...route.value.query, object: row.id })} onClick={() => scrollTo(0, 0)}>
                    {row.type}
                  </a>
                ) : (
                  row.type
                )}
              </th>
              <td class="number">{count(row.now)}</td>
              <td class={row.grown > 0 ? "number bad" : "number quiet"}>{row.grown > 0 ? `+${count(row.grown)}` : count(row.grown)}</td>
              <td class="number">{bytes(row.bytes)}</td>
              <td>
                <Spark values={row.history} label={`${row.type}: from ${count(row.history[0])} to ${count(row.now)}`} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function ObjectCard({ id }: { id: string }) {
  const item = useResource((abort) => lookAt(id, abort), [id]);
  const found = item.data.value;
  return (
    <Card
      title={found ? typeOf(found.node) : "Object"}
      note={found ? `${bytes(found.node.retained_bytes)} would be freed with it` : "taking the graph…"}
      action={
        <button type="button" class="plain" onClick={() => setQuery({ object: null })}>
          Close
        </button>
      }
    >
      {item.error.value && <Trouble error={item.error.value} onRetry={() => void item.reload()} />}
      {found && (
        <>
          <p class="mono path">{found.path.text}</p>
          <div class="columns">
            <Links title={`Held by ${count(found.held_count)}`} links={found.held_by} />
            <Links title={`Holds ${count(found.holds_count)}`} links={found.holds} />
          </div>
        </>
      )}
    </Card>
  );
}

/** An object younger than the open graph, or shown before it, needs a new graph: once. */
async function lookAt(id: string, abort: AbortSignal) {
  if (graphTaken.value !== null) {
    try {
      return await api.heapObject(id, abort);
    } catch (error) {
      if (abort.aborted) throw error;
    }
  }
  await api.takeGraph();
  graphTaken.value = id;
  return api.heapObject(id, abort);
}

function Links({ title, links }: { title: string; links: readonly Neighbour[] }) {
  return (
    <div class="scroll">
      <table class="table small">
        <thead>
          <tr>
            <th>{title}</th>
            <th>Type</th>
            <th class="number">Retains</th>
          </tr>
        </thead>
        <tbody>
          {links.map((link, at) => (
            <tr key={at}>
              <td class="mono">{link.how}</td>
              <td class="mono">
                {link.node.id ? <a href={href(["memory"], { ...route.value.query, object: link.node.id })}>{typeOf(link.node)}</a> : typeOf(link.node)}
              </td>
              <td class="number">{bytes(link.node.retained_bytes)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function typeOf(node: HeapNode): string {
  const name = node.type ?? `${node.root ?? ""} ${node.name ?? ""}`.trim();
  const length = node.length == null ? "" : ` (${count(node.length)})`;
  return `${name}${node.label ? ` ${node.label}` : ""}${length}`;
}

async function act(what: "collect" | "trim"): Promise<void> {
  try {
    if (what === "collect") {
      const told = await api.collect();
      notify("ok", `${count(told.freed)} objects were collected.`);
    } else {
      const told = await api.trim();
      notify("ok", `Trimming gave back ${short((told.before - told.after) / 1e6)} MB.`);
    }
  } catch (error) {
    notify("error", explain(error));
  }
}
