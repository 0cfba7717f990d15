// The verdict dialog: loaded from the server, filled in with keys, its effect previewed while it changes.
import { fragment, get, post } from "./fragment";

interface Result { text: string; id: number; undo: string; pending: boolean }
let last: { id: number; at: number } | null = null;

export const openVerdict = async (p: URLSearchParams, done: (r: Result) => void, closed: () => void) => {
  const dlg = document.getElementById("dlg") as HTMLDialogElement;
  dlg.replaceChildren(await get("/verdict/new?" + p));
  const wire = () => {
    const form = dlg.querySelector<HTMLFormElement>("form")!;
    const verdict = () => (form.elements.namedItem("v") as RadioNodeList).value;
    const sync = () => { form.dataset.v = verdict(); };
    let timer = 0, abort: AbortController | undefined;
    const preview = () => {
      clearTimeout(timer); abort?.abort();
      timer = window.setTimeout(async () => {
        abort = new AbortController();
        const q = new URLSearchParams(new FormData(form) as any); q.delete("csrf"); q.delete("why");
        try { dlg.querySelector("#fx")!.replaceChildren(await get("/verdict/preview?" + q, abort.signal)); } catch { /* superseded */ }
      }, 120);
    };
    sync();
    form.addEventListener("input", (e) => {
      const el = e.target as HTMLInputElement;
      if (el.name === "until") (form.querySelector('input[name=days][value=date]') as HTMLInputElement).checked = true;
      if (el.name !== "why") { sync(); preview(); }
    });
    form.addEventListener("submit", async (e) => {
      e.preventDefault();
      const b = form.querySelector<HTMLButtonElement>("[data-ok]"); if (!b || b.disabled) return;
      b.disabled = true;
      try {
        const r = await post(form.action, new URLSearchParams(new FormData(form) as any));
        if (r.ok) { const res = (await r.json()) as Result; last = { id: res.id, at: Date.now() }; dlg.close(); done(res); return; }
        const body = await r.text();
        if (r.status === 422) { dlg.replaceChildren(fragment(body)); wire(); return; }
        throw new Error(String(r.status));
      } catch { b.disabled = false; b.classList.add("failed"); }
    });
    for (const c of form.querySelectorAll("[data-close]")) c.addEventListener("click", () => dlg.close());
    form.querySelector<HTMLInputElement>("input[name=v]:checked")?.focus();
  };
  wire();
  dlg.onkeydown = (e) => {
    const t = e.target as HTMLElement, form = dlg.querySelector("form")!;
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); form.requestSubmit(); }
    else if (/^[1-4]$/.test(e.key) && !e.ctrlKey && !e.altKey && !t.matches("textarea,input[type=date]")) {
      const r = form.querySelectorAll<HTMLInputElement>("input[name=v]")[+e.key - 1];
      r.checked = true; r.focus(); r.dispatchEvent(new Event("input", { bubbles: true })); e.preventDefault();
    }
  };
  dlg.onclose = () => { dlg.replaceChildren(); closed(); };
  dlg.showModal();
};

let hide = 0;
export const toast = (text: string, id: number, word: string, csrf: string) => {
  const t = document.getElementById("toast")!; t.textContent = text;
  if (id) {
    const b = document.createElement("button"); b.type = "button"; b.textContent = word + " z";
    b.addEventListener("click", () => void undo(csrf)); t.append(b);
  }
  t.classList.add("on"); clearTimeout(hide); hide = window.setTimeout(() => t.classList.remove("on"), id ? 30_000 : 8_000);
};

export const undo = async (csrf: string) => {
  if (!last || Date.now() - last.at > 30_000) return;
  const id = last.id; last = null;
  const r = await post(`/suppressions/${id}/undo`, new URLSearchParams({ csrf }));
  if (r.ok) location.reload(); else toast(await r.text(), 0, "", csrf);
};
