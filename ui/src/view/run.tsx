/** One run: what it does or waits for, its block tree, and what each block gave. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { api } from "../api";
import { BoundedMap } from "../bounded";
import { now } from "../clock";
import { shortId } from "../format";
import { notify } from "../notice";
import { Badge } from "../part/badge";
import { CopyButton, Facts, JsonView, Tabs, Trouble, useTitle } from "../part/panel";
import { Moment, Span } from "../part/time";
import { fulfil } from "../request";
import { useResource } from "../resource";
import { href, route, setQuery, toDefinition, toRun } from "../route";
import { describeRun, ENDED, merge, type RunChange } from "../run";
import { stream } from "../stream";
import { reveal, StepIndex, type TreeView } from "../tree";
import type { BlockState, Run, RunDetail, Step, TreeNode } from "../type";
import { RunActions } from "./action";
import { BlockPanel } from "./block";
import { LogPanel } from "./log";
import { Tree } from "./tree";

const EVERY_MS = 15_000;
const LIVE: ReadonlySet<BlockState> = new Set(["RUNNING"]);
/** A page has 500 steps: a run with more than this many pages is shown in part. */
const MAX_PAGES = 10;
const MAX_CHILDREN = 6;
const CHILDREN_EVERY_MS = 3000;
const TABS = [
  { id: "block", text: "Block" },
  { id: "data", text: "Data" },
  { id: "log", text: "Log" },
];

interface AllBlocks {
  tree: TreeNode;
  steps: Step[];
  whole: boolean;
}

async function loadBlocks(id: string, abort: AbortSignal): Promise<AllBlocks | null> {
  const first = await api.blocks(id, null, abort);
  const steps = first.steps;
  let next = first.next;
  for (let page = 1; next !== null && page < MAX_PAGES; page++) {
    const more = await api.blocks(id, next, abort);
    steps.push(...more.steps);
    next = more.next;
  }
  return first.tree && { tree: first.tree, steps, whole: next === null };
}

export function RunView({ id }: { id: string }) {
  const run = useResource<RunDetail>((abort) => api.run(id, abort), [id], { everyMs: EVERY_MS });
  const blocks = useResource<AllBlocks | null>((abort) => loadBlocks(id, abort), [id], { everyMs: EVERY_MS });
  const { index: steps, patch } = useSteps(run.data.value, blocks.data.value);
  const update = (change: RunChange) => {
    const before = run.data.peek();
    if (before) run.data.value = merge(before, change);
  };
  useEffect(() => stream.watch(["run", "block", "log"], id), [id]);
  useEffect(
    () =>
      stream.listen((batch) => {
        for (const event of batch.events) {
          if (event.type === "block") patch({ path: event.path, name: event.name, state: event.state });
          else if (event.type === "run" && event.id === id) update(event);
          else continue;
          // The event says that something changed; outputs, times and errors come with the next load.
          if (event.type === "run") run.soon();
          blocks.soon();
        }
      }),
    [id, run, blocks, patch],
  );
  const shown = run.data.value;
  useEffect(() => {
    if (shown) fulfil(shown);
  }, [shown]);
  if (!shown) return <Loading id={id} error={run.error.value} onRetry={() => void run.reload()} />;
  const doing = blocks.data.value ? steps.doing(blocks.data.value.tree, LIVE) : [];
  return (
    <div class="view run-view">
      <Head run={shown} doing={doing} onChange={(answer) => (update(answer), blocks.soon())} />
      {run.error.value && <Trouble error={run.error.value} />}
      {blocks.error.value && <Trouble error={blocks.error.value} onRetry={() => void blocks.reload()} />}
      {blocks.data.value && <Work run={shown} blocks={blocks.data.value} steps={steps} />}
    </div>
  );
}

/** Events know of steps before the store does; those that the last load did not bring are kept for the next one. */
const MAX_AHEAD = 1000;

interface Steps {
  index: StepIndex;
  patch: (step: Step) => void;
}

function useSteps(run: RunDetail | null, blocks: AllBlocks | null): Steps {
  const ahead = useMemo(() => new BoundedMap<string, Step>(MAX_AHEAD), []);
  const [, setVersion] = useState(0);
  const index = useMemo(() => join(run, blocks, ahead), [blocks, run]);
  const patch = useMemo(
    () => (step: Step) => {
      ahead.set(step.path, step);
      index.put(step);
      setVersion((before) => before + 1);
    },
    [index],
  );
  return { index, patch };
}

function join(run: RunDetail | null, blocks: AllBlocks | null, ahead: BoundedMap<string, Step>): StepIndex {
  const index = new StepIndex(blocks?.steps ?? []);
  for (const step of blocks?.steps ?? []) ahead.delete(step.path);
  if (!run || !blocks) return index;
  const { started_at, ended_at, state } = run;
  // The root has no record: it is as the run is.
  if (started_at !== null) index.put({ path: String(blocks.tree.id), name: blocks.tree.name, state, started_at, ended_at });
  const ended = ENDED.has(run.state);
  for (const step of ahead.values()) if (!ended || ENDED.has(step.state)) index.put(step);
  for (const wait of run.wait ?? []) index.wait(wait);
  return index;
}

function Loading({ id, error, onRetry }: { id: string; error: string | null; onRetry: () => void }) {
  return (
    <div class="view">
      <h1>Run {shortId(id)}</h1>
      {error ? <Trouble error={error} onRetry={onRetry} /> : <p class="quiet">Loading…</p>}
      <p>
        <a href={href(["runs"])}>All runs</a>
      </p>
    </div>
  );
}

interface HeadProps {
  run: RunDetail;
  doing: readonly string[];
  onChange: (answer: Run) => void;
}

function Head({ run, doing, onChange }: HeadProps) {
  const name = run.label || run.definition;
  useTitle(`${name} ${shortId(run.id)}`);
  return (
    <header class="run-head">
      <div class="run-title">
        <p class="crumbs">
          <a href={href(["runs"])}>Runs</a>
          {run.parent_id && (
            <>
              {" / "}
              <a href={toRun(run.parent_id)}>parent run</a>
            </>
          )}
        </p>
        <h1>{name}</h1>
        <Badge state={run.state} />
        <span class="mono quiet id">
          {run.id} <CopyButton text={run.id} what="the run's id" />
        </span>
        <RunActions run={run} onChange={onChange} />
      </div>
      <p class="sentence" data-state={run.state} data-test="sentence">
        {describeRun(run, now.value, doing)}
        {run.state_message && <span class="quiet"> {run.state_message}</span>}
      </p>
      {run.error && (
        <p class="error-line" role="alert">
          {run.error_path && (
            <a href={toRun(run.id, run.error_path)} class="mono">
              {run.error_path}
            </a>
          )}
          <span>{run.error}</span>
        </p>
      )}
      <RunFacts run={run} />
    </header>
  );
}

function RunFacts({ run }: { run: RunDetail }) {
  return (
    <Facts
      items={[
        [
          "Definition",
          <a href={toDefinition(run.definition)}>
            {run.definition}
            {` v${run.version}`}
          </a>,
        ],
        ["Order", run.out_order_no ?? "–"],
        ["Priority", run.priority],
        ["Attempt", run.attempt],
        ["Created", <Moment at={run.created_at} />],
        ["Started", <Moment at={run.started_at} />],
        ["Took", <Span from={run.started_at} to={run.ended_at} />],
      ]}
    />
  );
}

/** The runs that this one started as sub-tasks. */
function Children({ run }: { run: string }) {
  const children = useResource((abort) => api.runs({ states: [], definition: "", order: "", parent: run }, MAX_CHILDREN, null, abort), [run], {
    everyMs: CHILDREN_EVERY_MS,
  });
  const page = children.data.value;
  if (!page || page.items.length === 0) return null;
  return (
    <nav class="children" aria-label="Sub-tasks">
      <span class="quiet">Sub-tasks</span>
      {page.items.map((child) => (
        <a key={child.id} href={toRun(child.id)}>
          {child.label} <Badge state={child.state} />
        </a>
      ))}
      {page.next && <span class="quiet">and more</span>}
    </nav>
  );
}

function Work({ run, blocks, steps }: { run: RunDetail; blocks: AllBlocks; steps: StepIndex }) {
  const selected = route.value.query.block ?? null;
  const [tab, setTab] = useState("block");
  const [view, setView] = useState<TreeView>(() => start(selected ?? run.error_path));
  useEffect(() => {
    if (selected === null) return;
    setView((before) => reveal(selected, before));
    setTab("block");
  }, [selected]);
  const select = (path: string) => setQuery({ block: path });
  return (
    <div class="run-work">
      <div class="run-left">
        <section class="card flush" aria-label="Blocks">
          <Tree root={blocks.tree} steps={steps} view={view} onView={setView} selected={selected} onSelect={select} state={run.state} whole={blocks.whole} />
        </section>
        <Children run={run.id} />
      </div>
      <section class="card side" aria-label="Details">
        <Tabs label="Details" tabs={TABS} shown={tab} onShow={setTab} />
        {tab === "block" && <BlockPanel path={selected} root={blocks.tree} steps={steps} />}
        {tab === "data" && <Data run={run} />}
        {tab === "log" && <LogPanel run={run.id} onSelect={(path) => (select(path), notify("ok", `Block ${path} is selected.`))} />}
      </section>
    </div>
  );
}

function start(path: string | null): TreeView {
  const view: TreeView = { closed: new Set(), iteration: new Map() };
  return path === null ? view : reveal(path, view);
}

function Data({ run }: { run: RunDetail }) {
  return (
    <div class="side-body">
      <h3>Inputs</h3>
      <JsonView value={run.inputs} label="the inputs" />
      <h3>Variables</h3>
      <JsonView value={run.variables} label="the variables" />
      <h3>Outputs</h3>
      <JsonView value={run.outputs} label="the outputs" />
      {run.response != null && (
        <>
          <h3>Response</h3>
          <JsonView value={run.response} label="the response" />
        </>
      )}
    </div>
  );
}
