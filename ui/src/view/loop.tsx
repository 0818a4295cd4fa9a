/** The iterations of a loop as a strip: each in its state's colour, the shown one marked and named. */
import { Icon } from "../part/icon";
import { STATE_TEXT } from "../run";
import type { Iterations } from "../tree";

const MAX_MARKS = 14;

export function Loop({ iterations, onChoose }: { iterations: Iterations; onChoose: (index: number) => void }) {
  const { indices, states, shown } = iterations;
  const at = indices.indexOf(shown);
  const begun = (indices[indices.length - 1] ?? 0) + 1;
  const from = Math.max(0, Math.min(at - MAX_MARKS / 2, indices.length - MAX_MARKS));
  const choose = (position: number) => (event: Event) => {
    event.stopPropagation();
    const index = indices[position];
    if (index !== undefined) onChoose(index);
  };
  return (
    <span class="loop">
      <button type="button" class="plain square small" disabled={at <= 0} onClick={choose(at - 1)} aria-label="Earlier iteration">
        <Icon name="newer" size={12} />
      </button>
      <span class="loop-strip" aria-hidden="true">
        {indices.slice(from, from + MAX_MARKS).map((index, position) => (
          <span
            key={index}
            class="loop-mark"
            data-state={states.get(index)}
            data-shown={index === shown}
            title={`iteration ${index}: ${STATE_TEXT[states.get(index) ?? "RUNNING"]}`}
            onClick={choose(from + position)}
          />
        ))}
      </span>
      <button type="button" class="plain square small" disabled={at >= indices.length - 1} onClick={choose(at + 1)} aria-label="Later iteration">
        <Icon name="older" size={12} />
      </button>
      <span class="quiet" title={`iteration ${shown}, counted from 0, of ${begun} begun; the records of old ones are let go`}>{`[${shown}] of ${begun}`}</span>
    </span>
  );
}
