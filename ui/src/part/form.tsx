/** Fields of a generated form. The line for the error is always there, so that nothing jumps when it fills. */
import type { Field } from "../schema";

interface FieldProps {
  /** Fields of several forms may share a name; the prefix keeps their ids apart. */
  prefix: string;
  field: Field;
  value: string;
  error: string | undefined;
  onChange: (value: string) => void;
}

export function FormField({ prefix, field, value, error, onChange }: FieldProps) {
  const id = `${prefix}-${field.name}`;
  return (
    <div class="field">
      <label for={id}>
        {field.label}
        {field.required && <em> required</em>}
        {prefix === "input" && field.label !== field.name && <code>{field.name}</code>}
      </label>
      <Control field={field} id={id} value={value} invalid={Boolean(error)} onChange={onChange} />
      <span class="field-note" id={`${id}-note`} data-error={Boolean(error)}>
        {error ?? field.help}
      </span>
    </div>
  );
}

interface ControlProps {
  field: Field;
  id: string;
  value: string;
  invalid: boolean;
  onChange: (value: string) => void;
}

function Control({ field, id, value, invalid, onChange }: ControlProps) {
  const common = { id, "aria-invalid": invalid, "aria-describedby": `${id}-note`, "aria-required": field.required };
  if (field.kind === "boolean" || field.choices.length > 0) {
    const choices = field.kind === "boolean" ? ["true", "false"] : field.choices;
    return (
      <select {...common} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">not given</option>
        {choices.map((choice) => (
          <option key={choice} value={choice}>
            {field.kind === "boolean" ? (choice === "true" ? "yes" : "no") : choice}
          </option>
        ))}
      </select>
    );
  }
  if (field.kind === "json") {
    return <textarea {...common} rows={4} spellcheck={false} value={value} placeholder="JSON" onInput={(event) => onChange(event.currentTarget.value)} />;
  }
  const numeric = field.kind === "integer" || field.kind === "number";
  return (
    <input
      {...common}
      type="text"
      inputMode={field.kind === "integer" ? "numeric" : numeric ? "decimal" : "text"}
      autocomplete="off"
      value={value}
      onInput={(event) => onChange(event.currentTarget.value)}
    />
  );
}
