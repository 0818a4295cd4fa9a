/** The guards of this machine: their workers against the limits, which task grows, why workers ended, what is refused. */
import { useEffect } from "preact/hooks";
import { api, explain } from "../api";
import { now } from "../clock";
import { age, bytes, count, duration, percent, plural, time } from "../format";
import { notify } from "../notice";
import { Meter } from "../part/meter";
import { Card, Empty, Facts, PageHead, Trouble } from "../part/panel";
import { useResource } from "../resource";
import { stream } from "../stream";
import type { Guarded, GuardedProcess, GuardedTask, GuardEnd, GuardWorker } from "../type";

const EVERY_MS = 3000;
const SHOWN = 30;

export function GuardView() {
  useEffect(() => stream.watch([]), []);
  const guards = useResource((abort) => api.guards(abort), [], { everyMs: EVERY_MS });
  const found = guards.data.value?.items;
  return (
    <div class="view">
      <PageHead title="Guard" note={found ? `${plural(found.length, "guard")} on this machine, run by the server's user` : ""} />
      {guards.error.value && <Trouble error={guards.error.value} onRetry={() => void guards.reload()} />}
      {found?.length === 0 && (
        <Empty icon="none">
          None runs. Start a worker under one: <code>flatwater guard --soft 600MiB -- COMMAND</code>
        </Empty>
      )}
      {found?.map((item) => (
        <Guard key={`${item.guard.pid} ${item.guard.start}`} item={item} reload={() => void guards.reload()} />
      ))}
    </div>
  );
}

function Guard({ item, reload }: { item: Guarded; reload: () => void }) {
  const { guard, workers, report, trouble } = item;
  return (
    <section class="guard" data-guard={guard.pid} aria-label={guard.command.join(" ")}>
      <Card title="Workers" note={<span class="mono">{guard.command.join(" ")}</span>} class="flush">
        <Workers workers={workers} limit={guard.hard ?? guard.soft} />
      </Card>
      {trouble && <Trouble error={trouble} />}
      {report && (
        <>
          <Card title="State">
            <Facts
              items={[
                ["Guard", `pid ${guard.pid}, up ${age(now.value - guard.since)}`],
                ["Soft limit", guard.soft === null ? "none" : bytes(guard.soft)],
                ["Hard limit", guard.hard === null ? "none" : bytes(guard.hard)],
                ["Recycled", `${plural(report.recycled, "time")}, ${bytes(report.given_back)} given back`],
                ["Trimmed", `${plural(report.trims, "time")}, ${bytes(report.trimmed)} given back in ${duration(report.trim_s)}`],
                ["Places empty", duration(report.away_s)],
                ["Record", <span class="mono">{guard.record}</span>],
              ]}
            />
            <Quarantine pid={guard.pid} names={report.quarantined} reload={reload} />
          </Card>
          <Card title="Tasks" note="the fastest growing first">
            <Tasks tasks={report.tasks} />
          </Card>
          <Card title="After the last task" note="how far each process is back at its start, by RSS (forks: by what is their own), and who holds the rest">
            <Processes processes={report.processes.filter((one) => one.lives)} />
          </Card>
          <Card title="Ends" note="of workers, but for those that were told to stop; the newest first">
            <Ends ends={report.ended} />
          </Card>
        </>
      )}
    </section>
  );
}

function Workers({ workers, limit }: { workers: readonly GuardWorker[]; limit: number | null }) {
  return (
    <div class="scroll">
      <table class="table">
        <thead>
          <tr>
            <th class="number">Worker</th>
            <th>Level</th>
            <th class="number">Highest</th>
            <th class="number">At its start</th>
            <th class="number">Up</th>
            <th>Runs</th>
          </tr>
        </thead>
        <tbody>
          {workers.map(({ worker, running }) => (
            <tr key={worker.pid} data-worker={worker.pid}>
              <th scope="row" class="number">
                {worker.pid}
              </th>
              <td>
                <Meter
                  value={worker.level}
                  bound={limit}
                  label={`worker ${worker.pid}`}
                  text={limit === null ? bytes(worker.level) : `${bytes(worker.level)} of ${bytes(limit)}`}
                />
              </td>
              <td class="number">{bytes(worker.highest)}</td>
              <td class="number">{bytes(worker.base)}</td>
              <td class="number">{age(now.value - worker.since)}</td>
              <td>
                {worker.leaving && <span class="bad">leaves: {worker.leaving}. </span>}
                {running.length === 0 && <span class="quiet">nothing</span>}
                {running.map((task) => (
                  <div key={`${task.pid} ${task.id}`} title={`${task.id}, pid ${task.pid}`}>
                    <span class="mono">{task.name}</span> <span class="quiet">for {age(now.value - task.since)}</span>
                  </div>
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Tasks({ tasks }: { tasks: readonly GuardedTask[] }) {
  if (tasks.length === 0) return <Empty icon="none">No task was reported: its worker has no integration, or has run none yet.</Empty>;
  return (
    <div class="scroll">
      <table class="table small">
        <thead>
          <tr>
            <th>Task</th>
            <th class="number">Calls</th>
            <th class="number">Failed</th>
            <th class="number">Mean</th>
            <th class="number">Longest</th>
            <th class="number">Peak</th>
            <th class="number">Grows per call</th>
            <th class="number">Share</th>
          </tr>
        </thead>
        <tbody>
          {tasks.slice(0, SHOWN).map((task) => (
            <tr key={task.name}>
              <th scope="row" class="mono">
                {task.name}
              </th>
              <td class="number">{count(task.count)}</td>
              <td class="number">{count(task.failed)}</td>
              <td class="number">{duration(task.mean_s)}</td>
              <td class="number">{duration(task.max_s)}</td>
              <td class="number">{bytes(task.peak)}</td>
              <td class={task.low !== null && task.low > 0 ? "number bad" : "number quiet"}>{growth(task)}</td>
              <td class="number">{task.share === null ? "" : percent(task.share, 1)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** As the report says it: nothing is claimed to grow whose interval reaches down to zero. */
function growth({ per_call, low, high }: GuardedTask): string {
  if (per_call === null || low === null || high === null) return "too few calls";
  return low > 0 ? `${bytes(per_call)} ± ${bytes(high - per_call)}` : `no, at most ${bytes(Math.max(high, 0))}`;
}

function Processes({ processes }: { processes: readonly GuardedProcess[] }) {
  if (processes.length === 0) return <Empty>No process that runs now has told of a task.</Empty>;
  return (
    <div class="scroll">
      <table class="table small">
        <thead>
          <tr>
            <th class="number">Process</th>
            <th class="number">Level</th>
            <th class="number">At its start</th>
            <th class="number">Trims</th>
            <th class="number">Gave back</th>
            <th>Back at its start</th>
          </tr>
        </thead>
        <tbody>
          {processes.map((one) => (
            <tr key={one.pid} data-process={one.pid}>
              <th scope="row" class="number" title={one.worker}>
                {one.pid}
              </th>
              <td class="number">{bytes(one.level)}</td>
              <td class="number">{bytes(one.base)}</td>
              <td class="number">{count(one.trims)}</td>
              <td class="number">{bytes(one.trimmed)}</td>
              <td>
                <span class={one.back ? "" : "bad"}>{rest(one)}</span>
                {!one.back && <div class="quiet">{one.holders || "which allocator holds it has not been measured"}</div>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function rest({ level, base, back }: GuardedProcess): string {
  if (!level || !base) return "its level is not known";
  if (level <= base) return "yes";
  return back ? `within ${Math.ceil((100 * (level - base)) / base)} %` : `${percent(level - base, base)} above it`;
}

function Ends({ ends }: { ends: readonly GuardEnd[] }) {
  if (ends.length === 0) return <Empty>There were none.</Empty>;
  return (
    <div class="scroll">
      <table class="table small">
        <thead>
          <tr>
            <th>At</th>
            <th class="number">Worker</th>
            <th>Why</th>
            <th class="number">Lived</th>
            <th class="number">Gave back</th>
            <th class="number">Place empty</th>
          </tr>
        </thead>
        <tbody>
          {[...ends].reverse().map((end) => (
            <tr key={`${end.at} ${end.pid}`}>
              <td>{time(end.at)}</td>
              <td class="number">{end.pid}</td>
              <td class={end.reason === "recycled" || end.reason === "exit" ? "" : "bad"}>
                {end.detail.startsWith("killed") ? end.detail : `${end.reason}: ${end.detail}`}
              </td>
              <td class="number">{duration(end.life_s)}</td>
              <td class="number">{bytes(end.freed)}</td>
              <td class="number">{duration(end.away_s)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Quarantine({ pid, names, reload }: { pid: number; names: readonly string[]; reload: () => void }) {
  if (names.length === 0) return null;
  const release = async (task: string) => {
    try {
      await api.release(pid, task);
      notify("ok", `${task} may run again.`);
    } catch (error) {
      notify("error", explain(error));
    }
    reload();
  };
  return (
    <ul class="quarantine" aria-label="Quarantined tasks">
      {names.map((task) => (
        <li key={task}>
          <span>
            <span class="mono">{task}</span> is refused: it was killed again and again.
          </span>
          <button type="button" data-release={task} onClick={() => void release(task)}>
            Release
          </button>
        </li>
      ))}
    </ul>
  );
}
