/** What a run's blocks wrote down, newest first. */
import { useEffect } from "preact/hooks";
import { api } from "../api";
import { Empty, Trouble } from "../part/panel";
import { Moment } from "../part/time";
import { useResource } from "../resource";
import { stream } from "../stream";
import type { LogLine } from "../type";

const PAGE_SIZE = 500;
/** The server keeps about a thousand lines of a run. */
const MAX_LINES = 2000;
const EVERY_MS = 15_000;

/** The server tells them in order; a reader wants the last first. */
async function loadLog(run: string, abort: AbortSignal): Promise<LogLine[]> {
  const lines: LogLine[] = [];
  let cursor: string | null = null;
  do {
    const page = await api.log(run, PAGE_SIZE, cursor, abort);
    lines.push(...page.items);
    cursor = page.next ?? null;
  } while (cursor !== null && lines.length < MAX_LINES);
  return lines.reverse();
}

export function LogPanel({ run, onSelect }: { run: string; onSelect: (path: string) => void }) {
  const lines = useResource((abort) => loadLog(run, abort), [run], { everyMs: EVERY_MS });
  useEffect(
    () =>
      stream.listen((batch) => {
        if (batch.events.some((event) => event.type === "log" && event.run_id === run)) lines.soon();
      }),
    [lines, run],
  );
  const shown = lines.data.value;
  return (
    <div class="side-body">
      {lines.error.value && <Trouble error={lines.error.value} />}
      {shown?.length === 0 && <Empty icon="file">This run has written nothing to its log.</Empty>}
      <ol class="log">
        {shown?.map((line, at) => (
          <li key={shown.length - at} data-level={line.level}>
            <span class="log-head quiet">
              <Moment at={line.at} /> <b>{line.level}</b>
              {line.path && (
                <button type="button" class="plain mono inline" onClick={() => onSelect(line.path as string)}>
                  {line.path}
                </button>
              )}
            </span>
            <span class="log-text">{line.message}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}
