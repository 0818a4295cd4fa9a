/** A state as colour, icon and word: never colour alone. */
import { STATE_TEXT } from "../run";
import type { BlockState } from "../type";
import { Icon, type IconName } from "./icon";

const ICONS: Record<BlockState, IconName> = {
  QUEUED: "queued",
  RUNNING: "running",
  WAITING: "waiting",
  PAUSED: "paused",
  SUCCEEDED: "succeeded",
  FAILED: "failed",
  CANCELED: "canceled",
  NEEDS_OPERATOR: "operator",
  SKIPPED: "skipped",
};

export function Badge({ state }: { state: BlockState }) {
  return (
    <span class="badge" data-state={state}>
      <Icon name={ICONS[state] ?? "none"} size={14} />
      {STATE_TEXT[state] ?? state}
    </span>
  );
}

export function StateIcon({ state }: { state: BlockState | null }) {
  return (
    <span class="state-icon" data-state={state ?? "NONE"}>
      <Icon name={state ? (ICONS[state] ?? "none") : "none"} size={14} />
    </span>
  );
}
