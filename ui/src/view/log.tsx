/** What a run's blocks wrote down, newest first. */
import { useEffect, useState } from "preact/hooks";
import { api } from "../api";
import { Empty, Trouble } from "../part/panel";
import { Moment } from "../part/time";
import { useResource } from "../resource";
import { stream } from "../stream";

const PAGE_SIZE = 100;

export function LogPanel({ run, onSelect }: { run: string; onSelect: (path: string) => void }) {
  const [cursor, setCursor] = useState<string | null>(null);
  const lines = useResource((abort) => api.log(run, PAGE_SIZE, cursor, abort), [run, cursor], { everyMs: 5000 });
  useEffect(
    () =>
      stream.listen((batch) => {
        if (batch.events.some((event) => event.type === "log" && (event.run_id ?? run) === run)) lines.soon();
      }),
    [lines, run],
  );
  const page = lines.data.value;
  return (
    <div class="side-body">
      {lines.error.value && <Trouble error={lines.error.value} />}
      {page?.items.length === 0 && <Empty icon="file">This run has written nothing to its log.</Empty>}
      <ol class="log">
        {page?.items.map((line, at) => (
          <li key={`${line.at} ${at}`} data-level={line.level}>
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
      <div class="actions">
        <button type="button" disabled={cursor === null} onClick={() => setCursor(null)}>
          Newest
        </button>
        <button type="button" disabled={!page?.next} onClick={() => setCursor(page?.next ?? null)}>
          Older
        </button>
      </div>
    </div>
  );
}
