// Keys come from the server's registry: the help dialog lists them, and this file reads its bindings from that dialog.
type Handler = (action: string, e: KeyboardEvent) => boolean | void;
const handlers: Handler[] = [];
const bindings = new Map<string, string>();
let prefix = "", prefixAt = 0;

export const onAction = (h: Handler) => { handlers.unshift(h); return () => { handlers.splice(handlers.indexOf(h), 1); }; };
export const act = (action: string, e?: KeyboardEvent) => handlers.some((h) => h(action, e as KeyboardEvent));

const lettersOff = () => "keysOff" in document.documentElement.dataset;
const typing = (t: HTMLElement) => !!t.closest("input:not([type=checkbox]):not([type=radio]),textarea,select,[contenteditable],dialog");

export const startKeys = () => {
  for (const el of document.querySelectorAll<HTMLElement>("#keys [data-do]"))
    for (const k of el.dataset.keys!.split("|")) bindings.set(k, el.dataset.do!);
  document.addEventListener("keydown", (e) => {
    const t = e.target as HTMLElement;
    if (e.isComposing || e.ctrlKey || e.metaKey) return;
    if (e.key === "Escape") {
      const open = document.querySelector<HTMLDetailsElement>("details.menu[open]");
      if (open) { open.open = false; open.querySelector("summary")!.focus(); e.preventDefault(); return; }
      if (t.closest("input[type=search]")) { t.blur(); return; }
    }
    if (typing(t)) return;
    const single = e.key.length === 1;
    // Single letters may be turned off; then Alt brings them back.
    if (single ? e.altKey !== lettersOff() : e.altKey) return;
    if (single && t.closest("summary,button,a") && e.key === " ") return;
    if (e.key === "Enter" && t.closest("a,button,summary")) return;
    const now = Date.now();
    const seq = prefix && now - prefixAt < 1500 ? prefix + " " + e.key : "";
    prefix = "";
    const action = bindings.get(seq) ?? bindings.get(e.key);
    if (!action && [...bindings.keys()].some((k) => k.startsWith(e.key + " "))) { prefix = e.key; prefixAt = now; return; }
    if (!action) return;
    if (action.startsWith("go:")) { location.href = action.slice(3); e.preventDefault(); return; }
    if (act(action, e)) e.preventDefault();
  });
  const dlg = document.getElementById("keys") as HTMLDialogElement | null;
  handlers.push((a) => {
    if (a === "help" && dlg) { dlg.showModal(); return true; }
    if (a === "search") {
      const q = document.getElementById("q") as HTMLInputElement | null; if (!q) return;
      const d = q.closest("details"); if (d) d.open = true;
      q.focus(); q.select(); return true;
    }
  });
  document.addEventListener("click", (e) => {
    const b = (e.target as Element).closest<HTMLElement>("[data-act]");
    if (b) act(b.dataset.act!);
  });
};
