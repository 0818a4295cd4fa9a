/** What may lie over any view: notices, the question before a destructive act, and the question for the token. */
import { useState } from "preact/hooks";
import { dismiss, notices, question } from "../notice";
import { answer, asking, refused } from "../token";
import { Dialog } from "./dialog";
import { Icon } from "./icon";

export function Hosts() {
  return (
    <>
      <Notices />
      <Confirmation />
      {asking.value && <TokenQuestion />}
    </>
  );
}

function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map((notice) => (
        <div key={notice.id} class={`notice ${notice.kind}`}>
          <Icon name={notice.kind === "ok" ? "succeeded" : "warn"} />
          <span>{notice.text}</span>
          <button type="button" class="plain square" onClick={() => dismiss(notice.id)} aria-label="Dismiss this message">
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

function Confirmation() {
  const asked = question.value;
  if (!asked) return null;
  return (
    <Dialog key={asked.title} title={asked.title} onClose={() => asked.answer(false)}>
      <p class="dialog-text">{asked.text}</p>
      <div class="dialog-foot">
        <button type="button" onClick={() => asked.answer(false)}>
          Keep as it is
        </button>
        <button type="button" class={asked.danger ? "danger" : "primary"} data-confirm onClick={() => asked.answer(true)}>
          {asked.action}
        </button>
      </div>
    </Dialog>
  );
}

function TokenQuestion() {
  const [text, setText] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    if (text.trim()) answer(text.trim());
  };
  return (
    <Dialog title="This server needs a token" onClose={() => undefined} closable={false}>
      <form onSubmit={submit}>
        <p class="dialog-text">
          The server printed it when it started (or it is in its settings as <code>server.token</code>). It is kept for this tab only.
        </p>
        <label class="field">
          <span>Token</span>
          <input
            type="password"
            name="token"
            autocomplete="current-password"
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
            aria-invalid={refused.value}
          />
          <span class="field-note" role="alert">
            {refused.value ? "The server did not accept this token." : ""}
          </span>
        </label>
        <div class="dialog-foot">
          <button type="submit" class="primary">
            Go on
          </button>
        </div>
      </form>
    </Dialog>
  );
}
