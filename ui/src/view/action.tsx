/** The buttons of one run. A button that the state does not allow is disabled and says why. */
import { Icon, type IconName } from "../part/icon";
import { openRequest, perform } from "../request";
import { ACTIONS, allows, REQUESTED, STATE_TEXT } from "../run";
import type { Run, RunAction } from "../type";

const TEXT: Record<RunAction, string> = { pause: "Pause", resume: "Resume", retry: "Retry", cancel: "Cancel" };
const ICON: Record<RunAction, IconName> = { pause: "paused", resume: "running", retry: "retry", cancel: "cancel" };

export function RunActions({ run, onChange }: { run: Run; onChange: (answer: Run) => void }) {
  const open = openRequest(run);
  const act = async (action: RunAction) => {
    const answer = await perform(run, action);
    if (answer) onChange(answer);
  };
  return (
    <div class="actions" role="group" aria-label="Act on this run">
      {ACTIONS.map((action) => {
        const allowed = allows(run.state, action);
        return (
          <button
            key={action}
            type="button"
            data-action={action}
            class={action === "cancel" ? "danger-line" : ""}
            disabled={!allowed || open !== null}
            title={allowed ? undefined : `A run that is ${STATE_TEXT[run.state]} cannot be changed by ${TEXT[action].toLowerCase()}`}
            onClick={() => void act(action)}
          >
            <Icon name={ICON[action]} />
            {open === action ? `${capital(REQUESTED[action].text)}…` : TEXT[action]}
          </button>
        );
      })}
    </div>
  );
}

function capital(text: string): string {
  return `${text[0]?.toUpperCase()}${text.slice(1)}`;
}
