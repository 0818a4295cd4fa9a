/** Small pieces that every view is made of. */
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import type { Json } from "../type";
import { notify } from "../notice";
import { Icon, type IconName } from "./icon";

const MAX_SHOWN_CHARS = 20_000;

interface CardProps {
  title: string;
  note?: ComponentChildren;
  action?: ComponentChildren;
  children: ComponentChildren;
  class?: string;
}

export function Card({ title, note, action, children, class: extra = "" }: CardProps) {
  return (
    <section class={`card ${extra}`}>
      <header class="card-head">
        <h2>{title}</h2>
        {note && <p class="card-note">{note}</p>}
        {action && <div class="card-action">{action}</div>}
      </header>
      {children}
    </section>
  );
}

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Flatwater`;
  }, [title]);
}

export function PageHead({ title, note, children }: { title: string; note?: ComponentChildren; children?: ComponentChildren }) {
  useTitle(title);
  return (
    <header class="page-head">
      <div>
        <h1>{title}</h1>
        <p class="page-note">{note}</p>
      </div>
      <div class="page-actions">{children}</div>
    </header>
  );
}

/** A failure to load, in the place where the data would be. */
export function Trouble({ error, onRetry }: { error: string; onRetry?: () => void }) {
  return (
    <div class="trouble" role="alert">
      <Icon name="warn" />
      <span>{error}</span>
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Empty({ icon = "succeeded", children }: { icon?: IconName; children: ComponentChildren }) {
  return (
    <p class="empty">
      <Icon name={icon} />
      <span>{children}</span>
    </p>
  );
}

/** Values as indented JSON, cut where a page would become slow; the copy has everything. */
export function JsonView({ value, label }: { value: Json | undefined; label: string }) {
  if (value == null || (typeof value === "object" && Object.keys(value).length === 0)) return <p class="quiet">none</p>;
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const rest = text.length - MAX_SHOWN_CHARS;
  return (
    <div class="json">
      <pre tabIndex={0} aria-label={label}>
        {rest > 0 ? `${text.slice(0, MAX_SHOWN_CHARS)}\n… ${rest} more characters` : text}
      </pre>
      <CopyButton text={text} what={label} />
    </div>
  );
}

export function CopyButton({ text, what }: { text: string; what: string }) {
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => notify("ok", `Copied ${what}.`),
      () => notify("error", "The browser did not allow copying."),
    );
  return (
    <button type="button" class="plain square copy" onClick={copy} title={`Copy ${what}`} aria-label={`Copy ${what}`}>
      <Icon name="copy" />
    </button>
  );
}

export interface Tab {
  id: string;
  text: string;
}

export function Tabs({ tabs, shown, onShow, label }: { tabs: readonly Tab[]; shown: string; onShow: (id: string) => void; label: string }) {
  return (
    <div class="tabs" role="group" aria-label={label}>
      {tabs.map((tab) => (
        <button key={tab.id} type="button" class="tab" aria-pressed={tab.id === shown} onClick={() => onShow(tab.id)}>
          {tab.text}
        </button>
      ))}
    </div>
  );
}

export function Facts({ items }: { items: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {items.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
