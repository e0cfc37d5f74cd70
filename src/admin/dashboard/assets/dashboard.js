// What the pages do besides. All of it can be missed: without this, times are in UTC and nothing is copied by a button.
"use strict";

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

// Times in the browser's zone.
for (const time of document.querySelectorAll("time[datetime]")) {
  const text = exact.format(new Date(time.dateTime));
  if (time.hasAttribute("data-exact")) time.textContent = text;
  else time.title = text;
}

// Fields for times: what is typed is on the browser's clock, and is sent with its distance from UTC.
for (const field of document.querySelectorAll("input[data-utc]")) {
  const clock = (time) => new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  const offset = field.form.elements.offset;
  if (field.value && !offset.value) field.value = clock(new Date(field.value + "Z"));
  const note = () => {
    const time = new Date(field.value);
    offset.value = Number.isNaN(time.valueOf()) ? "" : time.getTimezoneOffset();
  };
  field.addEventListener("input", note);
  field.form.addEventListener("submit", note);
  note();
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const word of field.form.querySelectorAll("[data-zone]")) word.textContent = `In your time (${zone}).`;
}

// What was done last is where reading begins, unless a field waits to be put right.
if (!document.querySelector("[aria-invalid]")) document.getElementById("notice")?.focus();

// Buttons that copy.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  const before = button.innerHTML;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // No permission, or no HTTPS: then it is only marked, for the keyboard to copy.
      getSelection().selectAllChildren(source);
      button.textContent = "Marked; press Ctrl+C";
    }
    setTimeout(() => { button.innerHTML = before; }, 3000);
  });
}

// A secret does not stay in a page that the browser keeps for Back.
addEventListener("pagehide", () => {
  for (const shown of document.querySelectorAll("[data-wipe]")) shown.remove();
});
