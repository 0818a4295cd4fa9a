/** Is the server well, is its memory flat, what waits and what needs a person? */
import { useMemo } from "preact/hooks";
import { api } from "../api";
import { now } from "../clock";
import { age, bytes, count, duration, percent, plural, short } from "../format";
import { byFullness, fullness, isFixed } from "../ledger";
import { Badge } from "../part/badge";
import { MemoryChart } from "../part/chart";
import { Meter } from "../part/meter";
import { Icon } from "../part/icon";
import { Card, Empty, Facts, PageHead, Trouble } from "../part/panel";
import { Age } from "../part/time";
import { useResource } from "../resource";
import { href, toRun, toRuns } from "../route";
import { describeWait } from "../run";
import { verdict } from "../slope";
import { info, pulse, readiness, samples, startedAt, status } from "../status";
import { stream } from "../stream";
import type { Page, Run } from "../type";
import { useEffect } from "preact/hooks";

const EVERY_MS = 4000;
const VERDICT_TONE = { measuring: "", settling: "", flat: "good", falling: "good", growing: "bad" };
const TROUBLES = 5;
const WAITING_READ = 100;
const REASONS = 4;

export function OverviewView() {
  useEffect(() => stream.watch([]), []);
  return (
    <div class="view overview">
      <PageHead title="Overview" note={<ReadinessSentence />} />
      {status.error.value && !status.data.value && <Trouble error={status.error.value} onRetry={() => void status.reload()} />}
      <Tiles />
      <div class="columns">
        <MemoryCard />
        <TroubleCard />
        <WaitingCard />
        <LedgerCard />
      </div>
    </div>
  );
}

function ReadinessSentence() {
  const ready = readiness.data.value;
  const error = readiness.error.value;
  if (error) return <span class="verdict" data-verdict="bad"><Icon name="warn" />{error}</span>;
  if (!ready) return <span class="verdict">Asking the server…</span>;
  const bad = Object.entries(ready.checks).filter(([, check]) => !check.ok);
  if (ready.ready) {
    return (
      <span class="verdict" data-verdict="good">
        <Icon name="succeeded" />
        Ready: takes new runs.
      </span>
    );
  }
  return (
    <span class="verdict" data-verdict="bad">
      <Icon name="warn" />
      Not ready: {bad.map(([name, check]) => [name, check.detail].filter(Boolean).join(": ")).join("; ") || "the server does not say why"}
    </span>
  );
}

function Tiles() {
  const live = pulse.value;
  const loaded = status.data.value;
  const runs = loaded?.runs ?? {};
  const operator = loaded ? (runs.NEEDS_OPERATOR ?? 0) : null;
  return (
    <div class="tiles">
      <Tile name="Active" value={live?.active ?? runs.active} to={toRuns({ state: "RUNNING" })} />
      <Tile name="Waiting" value={live?.waiting ?? runs.waiting} to={toRuns({ state: "WAITING" })} />
      <Tile name="Pending" value={live?.pending ?? runs.pending} to={toRuns({ state: "QUEUED" })} />
      <Tile name="Paused" value={loaded ? (runs.PAUSED ?? 0) : null} to={toRuns({ state: "PAUSED" })} />
      <Tile name="Need an operator" value={operator} to={toRuns({ state: "NEEDS_OPERATOR" })} alarm={Boolean(operator)} />
      <Tile name="Runs per second" text={live ? short(live.rate_per_s) : loaded ? short(loaded.rate_per_s) : undefined} to={toRuns({})} />
    </div>
  );
}

interface TileProps {
  name: string;
  value?: number | null | undefined;
  text?: string | undefined;
  to: string;
  alarm?: boolean;
}

function Tile({ name, value, text, to, alarm = false }: TileProps) {
  return (
    <a class="tile" href={to} data-alarm={alarm}>
      <span class="tile-value">{text ?? count(value)}</span>
      <span class="tile-name">{name}</span>
    </a>
  );
}

function MemoryCard() {
  const memory = status.data.value?.memory;
  const points = samples.value;
  const limit = memory?.limit_bytes ?? null;
  const answer = useMemo(() => verdict(points, { startedAt: startedAt.value, limitBytes: limit }), [points, limit, startedAt.value]);
  const rss = pulse.value?.rss_bytes ?? memory?.rss_bytes;
  return (
    <Card
      class="memory"
      title="Memory of the server"
      note={
        <span class="verdict" data-verdict={VERDICT_TONE[answer.kind]} data-test="verdict">
          {bytes(rss)}, {answer.sentence}
        </span>
      }
    >
      <MemoryChart samples={points} limitBytes={limit} height={140} label={`Resident memory over time, ${answer.sentence}`} />
      <Facts
        items={[
          ["Limit", limit ? `${bytes(limit)} (${percent(rss ?? 0, limit)} used)` : "none"],
          ["Own (USS)", bytes(memory?.uss_bytes)],
          ["Shared in (PSS)", bytes(memory?.pss_bytes)],
          ["Threads", count(memory?.threads)],
          ["Open files", count(memory?.fds)],
          ["Asyncio tasks", count(memory?.asyncio_tasks)],
          ["Contexts", contexts()],
          ["Up", duration(status.data.value ? Math.round(status.data.value.uptime_s) : null)],
        ]}
      />
    </Card>
  );
}

function contexts(): string {
  const found = status.data.value?.contexts;
  return found?.overdue ? `${count(found.live)}, ${count(found.overdue)} overdue` : count(found?.live);
}

function TroubleCard() {
  const runs = useResource<Page<Run>>(
    (abort) => api.runs({ states: ["FAILED", "NEEDS_OPERATOR"], definition: "", order: "" }, TROUBLES, null, abort),
    [],
    { everyMs: EVERY_MS },
  );
  const items = runs.data.value?.items;
  return (
    <Card title="Latest troubles" action={<a href={toRuns({ state: "FAILED,NEEDS_OPERATOR" })}>All</a>}>
      {runs.error.value && <Trouble error={runs.error.value} />}
      {items?.length === 0 && <Empty>No run has failed or needs an operator.</Empty>}
      <ul class="list">
        {items?.map((run) => (
          <li key={run.id}>
            <a class="list-row" href={toRun(run.id)}>
              <Badge state={run.state} />
              <span class="list-main">
                <strong>{run.label ?? run.definition}</strong>
                <span class="quiet cut">{run.error ?? run.state_message ?? "no message"}</span>
              </span>
              <span class="quiet number">
                <Age at={run.ended_at ?? run.created_at} />
              </span>
            </a>
          </li>
        ))}
      </ul>
    </Card>
  );
}

interface Reason {
  text: string;
  runs: number;
  since: number;
  first: string;
}

/** What the waiting runs wait for, the most common reason first. */
export function reasonsOf(runs: readonly Run[]): Reason[] {
  const reasons = new Map<string, Reason>();
  for (const run of runs) {
    const [wait] = run.wait ?? [];
    if (!wait) continue;
    const text = describeWait({ ...wait, place: null, since: null }, 0);
    const known = reasons.get(text);
    const since = wait.since ?? run.created_at;
    if (!known) reasons.set(text, { text, runs: 1, since, first: run.id });
    else reasons.set(text, { ...known, runs: known.runs + 1, since: Math.min(known.since, since), first: since < known.since ? run.id : known.first });
  }
  return [...reasons.values()].sort((a, b) => b.runs - a.runs || a.since - b.since);
}

function WaitingCard() {
  const runs = useResource<Page<Run>>((abort) => api.runs({ states: ["WAITING"], definition: "", order: "" }, WAITING_READ, null, abort), [], {
    everyMs: EVERY_MS,
  });
  const page = runs.data.value;
  const reasons = reasonsOf(page?.items ?? []);
  const note = page?.next ? `of the newest ${WAITING_READ} waiting runs` : undefined;
  return (
    <Card title="What runs wait for" note={note} action={<a href={toRuns({ state: "WAITING" })}>All</a>}>
      {runs.error.value && <Trouble error={runs.error.value} />}
      {page && reasons.length === 0 && <Empty>Nothing waits.</Empty>}
      <ul class="list">
        {reasons.slice(0, REASONS).map((reason) => (
          <li key={reason.text}>
            <a class="list-row" href={toRun(reason.first)}>
              <span class="list-main">
                <strong>{plural(reason.runs, "run")}</strong>
                <span class="cut">{reason.text}</span>
              </span>
              <span class="quiet number" title="the longest wait">
                {age(now.value - reason.since)}
              </span>
            </a>
          </li>
        ))}
      </ul>
      {reasons.length > REASONS && <p class="quiet">and {plural(reasons.length - REASONS, "more reason")}</p>}
    </Card>
  );
}

function LedgerCard() {
  const ledger = useResource((abort) => api.ledger(abort), [], { everyMs: EVERY_MS });
  const items = ledger.data.value?.items;
  const fullest = byFullness(items ?? [])
    .filter((item) => !isFixed(item))
    .slice(0, REASONS);
  return (
    <Card
      title="Bounded collections"
      note={items ? `the fullest of ${items.length}` : undefined}
      action={<a href={href(["ledger"])}>All</a>}
    >
      {ledger.error.value && <Trouble error={ledger.error.value} />}
      <ul class="list">
        {fullest.map((item) => (
          <li key={item.name} class="list-row">
            <span class="list-main">
              <strong class="cut">{item.name}</strong>
            </span>
            <Meter
              value={fullness(item)}
              bound={1}
              label={item.name}
              text={`${count(item.size)} of ${count(item.bound)}`}
            />
          </li>
        ))}
      </ul>
      <p class="quiet">{info.value ? `Database: ${info.value.database}` : ""}</p>
    </Card>
  );
}
