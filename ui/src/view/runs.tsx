/** The list of runs: live on its first page, filtered and paged by the address. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { api } from "../api";
import { now } from "../clock";
import { plural, shortId } from "../format";
import { Badge } from "../part/badge";
import { Icon } from "../part/icon";
import { Empty, PageHead, Trouble } from "../part/panel";
import { Age, Span } from "../part/time";
import { fulfil, openRequest, performAll } from "../request";
import { useResource } from "../resource";
import { go, href, route, toRun } from "../route";
import { ACTIONS, allows, describeRun, type ListFilter, REQUESTED, RunList } from "../run";
import { stream } from "../stream";
import type { Page, Run } from "../type";
import { FilterFields, StateChips } from "./filter";
import { StartDialog } from "./start";

const PAGE_SIZE = 50;
/** One for the whole life of the page. */
const list = new RunList(PAGE_SIZE, "shown runs");
const SETTLE_MS = 500;
/** Also without events the list is never older than this. */
const EVERY_MS = 30_000;

export function RunsView() {
  const { query } = route.value;
  const filter = useMemo(() => filterOf(query), [query.state, query.definition, query.order]);
  const cursor = query.cursor ?? null;
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [held, setHeld] = useState(false);
  const [starting, setStarting] = useState(false);
  const page = useResource<Page<Run>>(
    async (abort) => {
      const loaded = await api.runs(filter, PAGE_SIZE, cursor, abort);
      list.show(loaded.items, filter, cursor === null);
      return loaded;
    },
    [filter, cursor],
    { everyMs: EVERY_MS },
  );
  useEffect(() => stream.watch(["run"]), []);
  useEffect(() => setSelected(new Set()), [filter, cursor]);
  const hold = held || selected.size > 0;
  useEffect(() => {
    list.held = hold;
    const leave = stream.listen((batch) => {
      if (list.apply(batch)) page.soon();
    });
    const timer = setInterval(() => {
      if (list.settle()) page.soon();
    }, SETTLE_MS);
    return () => {
      leave();
      clearInterval(timer);
    };
  }, [hold, page]);
  const rows = list.rows.value;
  useEffect(() => rows.forEach(fulfil), [rows]);
  const chosen = rows.filter((run) => selected.has(run.id));
  return (
    <div class="view">
      <PageHead title="Runs" note={<ListNote live={cursor === null} held={hold} chosen={chosen.length > 0} fresh={list.fresh.value} />}>
        <FilterFields filter={filter} />
        <button type="button" class="primary" onClick={() => setStarting(true)}>
          <Icon name="plus" />
          Start a run
        </button>
      </PageHead>
      <StateChips filter={filter} />
      {page.error.value && <Trouble error={page.error.value} onRetry={() => void page.reload()} />}
      <div class="card flush">
        <Table rows={rows} selected={selected} onSelect={setSelected} onHold={setHeld} />
        {page.data.value && rows.length === 0 && (
          <Empty icon="runs">
            {filtered(filter) ? (
              <>
                No run matches this filter. <a href={href(["runs"])}>Show all runs</a>
              </>
            ) : (
              "There are no runs yet. Start one, or let a trigger do it."
            )}
          </Empty>
        )}
      </div>
      <footer class="pager bar">
        {chosen.length > 0 ? <Bulk runs={chosen} onDone={() => setSelected(new Set())} /> : <span class="quiet">{plural(rows.length, "run")} shown, newest first</span>}
        <div class="actions">
          <button type="button" disabled={cursor === null} onClick={() => go(["runs"], { ...query, cursor: null })}>
            Newest
          </button>
          <button type="button" disabled={!page.data.value?.next} onClick={() => go(["runs"], { ...query, cursor: page.data.value?.next })}>
            Older
            <Icon name="older" />
          </button>
        </div>
      </footer>
      {starting && <StartDialog definition={filter.definition} onClose={() => setStarting(false)} />}
    </div>
  );
}

function filterOf(query: Record<string, string>): ListFilter {
  return { states: (query.state ?? "").split(",").filter(Boolean), definition: query.definition ?? "", order: query.order ?? "" };
}

function filtered(filter: ListFilter): boolean {
  return filter.states.length > 0 || filter.definition !== "" || filter.order !== "";
}

interface NoteProps {
  live: boolean;
  held: boolean;
  chosen: boolean;
  fresh: number;
}

function ListNote({ live, held, chosen, fresh }: NoteProps) {
  if (!live) return <>An older page: it does not take new runs in.</>;
  if (!held) return <>Live, newest first.</>;
  const more = fresh >= PAGE_SIZE ? `${PAGE_SIZE} or more runs` : plural(fresh, "run");
  const why = chosen ? "Held while runs are selected" : "Held while you point at the list";
  return <>{fresh > 0 ? `${why}; ${more} came in since.` : `${why}; states stay live.`}</>;
}

interface TableProps {
  rows: readonly Run[];
  selected: ReadonlySet<string>;
  onSelect: (ids: ReadonlySet<string>) => void;
  onHold: (on: boolean) => void;
}

function Table({ rows, selected, onSelect, onHold }: TableProps) {
  const all = rows.length > 0 && rows.every((run) => selected.has(run.id));
  const toggle = (id: string) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    onSelect(next);
  };
  return (
    <div class="scroll" onPointerEnter={() => onHold(true)} onPointerLeave={() => onHold(false)} onFocusIn={() => onHold(true)} onFocusOut={() => onHold(false)}>
      <table class="table runs">
        <thead>
          <tr>
            <th class="pick">
              <input
                type="checkbox"
                aria-label="Select all shown runs"
                checked={all}
                onChange={() => onSelect(all ? new Set() : new Set(rows.map((run) => run.id)))}
              />
            </th>
            <th class="col-state">State</th>
            <th>Run</th>
            <th class="number col-small">Priority</th>
            <th class="number col-small">Age</th>
            <th class="number col-small">Took</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((run) => (
            <Row key={run.id} run={run} selected={selected.has(run.id)} onToggle={toggle} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ run, selected, onToggle }: { run: Run; selected: boolean; onToggle: (id: string) => void }) {
  const name = run.label || run.definition || run.id;
  const open = openRequest(run);
  return (
    <tr data-run={run.id} data-selected={selected}>
      <td class="pick">
        <input type="checkbox" aria-label={`Select ${name} ${run.id}`} checked={selected} onChange={() => onToggle(run.id)} />
      </td>
      <td class="col-state">
        <Badge state={run.state} />
        {open && <span class="pending">{REQUESTED[open].text}…</span>}
      </td>
      <td class="col-run">
        <a href={toRun(run.id)} class="row-link">
          <strong>{name}</strong>
          <span class="quiet mono" title={run.id}>
            {shortId(run.id)}
          </span>
          {run.out_order_no && <span class="quiet">order {run.out_order_no}</span>}
          {run.attempt > 1 && <span class="quiet">attempt {run.attempt}</span>}
        </a>
        <span class="cut quiet" title={run.error ?? undefined}>
          <Sentence run={run} />
        </span>
      </td>
      {/* A run that only an event has told of is known in part until the next load. */}
      <td class="number">{run.version === 0 ? "–" : run.priority}</td>
      <td class="number">
        <Age at={run.created_at} />
      </td>
      <td class="number">
        <Span from={run.started_at} to={run.ended_at} />
      </td>
    </tr>
  );
}

function Sentence({ run }: { run: Run }) {
  if (run.error && (run.state === "FAILED" || run.state === "NEEDS_OPERATOR")) return <>{run.error}</>;
  if (run.state === "WAITING" || run.state === "QUEUED" || run.wait?.length) return <>{describeRun(run, now.value)}</>;
  return <>{run.state_message ?? ""}</>;
}

function Bulk({ runs, onDone }: { runs: readonly Run[]; onDone: () => void }) {
  return (
    <div class="actions" role="group" aria-label="Act on the selected runs">
      <strong>{plural(runs.length, "run")} selected</strong>
      {ACTIONS.map((action) => {
        const fit = runs.filter((run) => allows(run.state, action)).length;
        return (
          <button
            key={action}
            type="button"
            disabled={fit === 0}
            class={action === "cancel" ? "danger-line" : ""}
            onClick={() => void performAll(runs, action).then(onDone)}
          >
            {action[0]?.toUpperCase()}
            {action.slice(1)} {fit > 0 && fit < runs.length ? fit : ""}
          </button>
        );
      })}
      <button type="button" class="plain" onClick={onDone}>
        Clear
      </button>
    </div>
  );
}
