/** The block tree: one line per block, loops folded to a strip of iterations. Arrow keys move, Enter selects. */
import { useRef } from "preact/hooks";
import { now } from "../clock";
import { StateIcon } from "../part/badge";
import { Icon } from "../part/icon";
import { Span } from "../part/time";
import { describeWait, ENDED, STATE_TEXT } from "../run";
import { MAX_ROWS, type Row, rowsOf, type StepIndex, type TreeView } from "../tree";
import type { State, TreeNode } from "../type";
import { count, plural } from "../format";
import { Loop } from "./loop";

interface TreeProps {
  root: TreeNode;
  steps: StepIndex;
  view: TreeView;
  onView: (view: TreeView) => void;
  selected: string | null;
  onSelect: (path: string) => void;
  state: State;
  /** False when the run has more steps than were loaded. */
  whole: boolean;
}

export function Tree(props: TreeProps) {
  const { root, steps, view, selected } = props;
  const list = useRef<HTMLDivElement>(null);
  const { rows, more } = rowsOf(root, steps, view, props.state);
  const focusable = rows.some((row) => row.path === selected) ? selected : rows[0]?.path;
  const onKey = (event: KeyboardEvent) => {
    const at = rows.findIndex((row) => row.key === (event.target as HTMLElement).dataset.path);
    const row = rows[at];
    if (!row) return;
    const target = step(event.key, rows, at, row, props);
    if (target === undefined) return;
    event.preventDefault();
    if (target !== null) list.current?.querySelector<HTMLElement>(`[data-path="${CSS.escape(target)}"]`)?.focus();
  };
  return (
    <div class="tree" role="tree" aria-label="Blocks of the run" ref={list} onKeyDown={onKey}>
      {rows.map((row) => (
        <Line key={row.key} row={row} tree={props} focusable={row.path === focusable} />
      ))}
      {more > 0 && <p class="empty">{`${plural(more, "more block")} beyond the first ${MAX_ROWS}: close some branches to see them.`}</p>}
      {(!props.whole || steps.dropped > 0) && <p class="empty">{`This run has more steps than the ${count(steps.size)} that are shown here.`}</p>}
    </div>
  );
}

/** Where a key leads: a path to focus, null when it acted, undefined when it is not ours. */
function step(key: string, rows: readonly Row[], at: number, row: Row, props: TreeProps): string | null | undefined {
  switch (key) {
    case "ArrowDown":
      return rows[at + 1]?.path ?? null;
    case "ArrowUp":
      return rows[at - 1]?.path ?? null;
    case "Home":
      return rows[0]?.path ?? null;
    case "End":
      return rows[rows.length - 1]?.path ?? null;
    case "ArrowRight":
      if (row.open === false) return toggle(row.path, props), null;
      return row.open ? (rows[at + 1]?.path ?? null) : null;
    case "ArrowLeft":
      if (row.open) return toggle(row.path, props), null;
      return rows.slice(0, at).findLast((above) => above.level < row.level)?.path ?? null;
    case "Enter":
    case " ":
      return props.onSelect(row.path), null;
    default:
      return undefined;
  }
}

function toggle(path: string, { view, onView }: TreeProps): void {
  const closed = new Set(view.closed);
  if (!closed.delete(path)) closed.add(path);
  onView({ ...view, closed });
}

function Line({ row, tree, focusable }: { row: Row; tree: TreeProps; focusable: boolean }) {
  const wait = row.step?.wait ?? null;
  const ended = ENDED.has(tree.state);
  const choose = (index: number) => tree.onView({ ...tree.view, iteration: new Map(tree.view.iteration).set(row.path, index) });
  const arrow = (event: Event) => {
    event.stopPropagation();
    toggle(row.path, tree);
  };
  return (
    <div
      role="treeitem"
      class="tree-row"
      style={{ "--level": String(row.level) }}
      data-path={row.path}
      data-state={row.state ?? "NONE"}
      aria-level={row.level + 1}
      aria-expanded={row.open ?? undefined}
      aria-selected={row.path === tree.selected}
      tabIndex={focusable ? 0 : -1}
      onClick={() => tree.onSelect(row.path)}
    >
      <div class="tree-line">
        {row.open === null ? (
          <span class="tree-arrow" />
        ) : (
          <button type="button" class="tree-arrow" tabIndex={-1} onClick={arrow} aria-label={row.open ? "Close" : "Open"}>
            <Icon name={row.open ? "closed" : "open"} size={14} />
          </button>
        )}
        <StateIcon state={row.state} />
        {row.branch && <span class="branch">{row.branch}</span>}
        <span class="tree-name">{row.node.name || (row.level === 0 ? "Start" : `block ${row.node.id}`)}</span>
        <span class="tree-type quiet">{row.node.type}</span>
        {row.iterations && <Loop iterations={row.iterations} onChoose={choose} />}
        <span class="tree-state">{stateText(row, ended)}</span>
        <span class="tree-time number">
          {row.step?.started_at != null && <Span from={row.step.started_at} to={row.step.ended_at ?? (ended ? row.step.started_at : null)} />}
        </span>
      </div>
      {wait && row.state === "WAITING" && <p class="tree-note">{describeWait(wait, now.value)}</p>}
      {row.step?.error && <p class="tree-note bad cut">{row.step.error}</p>}
    </div>
  );
}

function stateText(row: Row, ended: boolean): string {
  if (row.state === null) return ended ? "not reached" : "not yet";
  const attempt = row.step?.attempt ?? 1;
  return attempt > 1 ? `${STATE_TEXT[row.state]}, attempt ${attempt}` : STATE_TEXT[row.state];
}
