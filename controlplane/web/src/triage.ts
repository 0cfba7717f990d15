// The triage screen: expanding, selecting, windowing, the panel that follows the cursor, and live texts that move nothing.
import { get } from "./fragment";
import { openVerdict, toast, undo } from "./verdict";
import { RowList } from "./list";
import { onPatch, type Patch } from "./live";

class TriageGrid extends RowList {
  panel!: HTMLElement;
  sel = new Set<string>(); opened = new Set<string>();
  pending = 0; spoken = 0;
  io?: IntersectionObserver; panelTimer = 0; panelAbort?: AbortController; rowH = 34;
  recent: HTMLTableSectionElement[] = [];

  get q() { return new URLSearchParams(this.dataset.q); }

  ready() {
    this.panel = this.querySelector("#panel")!;
    this.rowH = this.querySelector<HTMLElement>("tbody tr")?.offsetHeight || 34;
    this.querySelector("#all")?.addEventListener("change", (e) => this.selectAll((e.target as HTMLInputElement).checked));
    if (this.getAttribute("mode") !== "sig") this.windowing();
    const rows = this.rows();
    const first = rows.find((r) => r.classList.contains("cur")) ?? rows[0];
    if (first) { this.quiet = true; this.moveTo(first, false); this.quiet = false; first.scrollIntoView({ block: "nearest" }); }
    onPatch((p) => this.patch(p));
    performance.mark("island-ready");
  }
  quiet = false;

  // Live: text only. Nothing is added, removed or put in another order until the person asks for it.
  patch(p: Patch) {
    const t0 = performance.now(); const hit: HTMLElement[] = []; let n = 0;
    for (const x of p.rows ?? []) {
      const r = document.getElementById(x.k); if (!r || !this.contains(r)) continue;
      const before = n;
      for (const c in x.c) { const el = r.querySelector(`[data-c="${c}"]`); if (el && el.textContent !== x.c[c]) { el.textContent = x.c[c]; n++; } }
      if (n !== before) hit.push(r);
    }
    for (const r of hit) r.classList.add("tick");
    if (hit.length) setTimeout(() => { for (const r of hit) r.classList.remove("tick"); }, 1200);
    this.pending = p.new;
    const bar = this.querySelector<HTMLElement>("#newbar")!;
    bar.hidden = p.new === 0; bar.querySelector("#newn")!.textContent = String(p.new);
    if (p.new && Date.now() - this.spoken > 60_000) { this.spoken = Date.now(); this.querySelector("#said")!.textContent = this.dataset.newSpoken + ": " + p.new; }
    performance.measure("patch", { start: t0, detail: n });
  }
  showNew() { if (this.pending) location.reload(); }

  // Windowing: blocks of 50 rows; blocks far away collapse to a spacer.
  windowing() {
    this.io = new IntersectionObserver((es) => {
      for (const e of es) { const b = e.target as HTMLTableSectionElement; if (e.isIntersecting) void this.fill(b); else this.collapse(b); }
    }, { root: this.scroller, rootMargin: "700px 0px" });
    for (const b of this.table?.tBodies ?? []) { if ("empty" in b.dataset) this.spacer(b); this.io.observe(b); }
  }
  spacer(b: HTMLTableSectionElement) { b.replaceChildren(); b.style.height = Number(b.dataset.n) * this.rowH + "px"; b.dataset.empty = ""; }
  collapse(b: HTMLTableSectionElement) {
    if ("empty" in b.dataset) return;
    if (this.cursor && b.querySelector("#" + CSS.escape(this.cursor))) return;
    this.spacer(b);
  }
  async fill(b: HTMLTableSectionElement): Promise<void> {
    if (!("empty" in b.dataset)) return;
    delete b.dataset.empty;
    const p = this.q; p.set("b", b.dataset.b!); const sort = new URLSearchParams(location.search).get("sort"); if (sort) p.set("sort", sort); p.set("asof", this.dataset.asof!);
    b.style.height = Number(b.dataset.n) * this.rowH + "px";
    try {
      const f = await get("/triage/rows?" + p);
      const r = b.getBoundingClientRect(), v = this.scroller.getBoundingClientRect();
      if (r.bottom < v.top - 1400 || r.top > v.bottom + 1400) { this.spacer(b); return; } // scrolled past while loading
      b.replaceChildren(f); b.style.height = "";
    } catch { this.spacer(b); return; }
    for (const r of b.rows) if (this.sel.has(r.dataset.k!)) this.paint(r, true);
    // At most a dozen blocks stay filled, so that long jumps don't pile up nodes.
    this.recent = [...this.recent.filter((x) => x !== b), b];
    while (this.recent.length > 12) this.collapse(this.recent.shift()!);
  }

  // The panel follows the cursor, a moment later.
  moved(r: HTMLTableRowElement) {
    if (this.quiet) return;
    const focus = r.dataset.alert ?? (r.dataset.clinic === "0" || !r.dataset.clinic ? r.dataset.sig! : r.dataset.sig + "@" + r.dataset.clinic);
    const here = new URL(location.href); here.searchParams.set("focus", focus); history.replaceState(null, "", here);
    clearTimeout(this.panelTimer); this.panelAbort?.abort();
    this.panelTimer = window.setTimeout(async () => {
      const abort = (this.panelAbort = new AbortController());
      const p = this.q; p.set("focus", focus);
      try { const f = await get("/triage/panel?" + p, abort.signal); this.panel.replaceChildren(f); this.panel.scrollTop = 0; this.panel.dataset.for = r.dataset.k; performance.mark("panel"); }
      catch { if (!abort.signal.aborted) { const e = document.createElement("p"); e.className = "warn"; e.textContent = this.dataset.failed!; const old = this.panel.querySelector(".p-in"); old?.querySelector(":scope > .warn")?.remove(); old?.prepend(e); } }
    }, 70);
  }
  async neighbour(r: HTMLTableRowElement, d: number) {
    const n = super.neighbour(r, d) as HTMLTableRowElement | null;
    if (n) return n;
    const b = r.parentElement as HTMLTableSectionElement;
    const nb = (d > 0 ? b.nextElementSibling : b.previousElementSibling) as HTMLTableSectionElement | null;
    if (nb?.tagName !== "TBODY") return null;
    await this.fill(nb);
    return (d > 0 ? nb.rows[0] : nb.rows[nb.rows.length - 1]) ?? null;
  }

  // Selection.
  paint(r: HTMLTableRowElement, on: boolean) { r.setAttribute("aria-selected", String(on)); const c = r.querySelector("input"); if (c) c.checked = on; }
  childrenOf(r: HTMLTableRowElement) {
    const out: HTMLTableRowElement[] = []; if (r.getAttribute("aria-level") !== "1") return out;
    for (let c = r.nextElementSibling as HTMLTableRowElement | null; c?.getAttribute("aria-level") === "2"; c = c.nextElementSibling as HTMLTableRowElement | null) out.push(c);
    return out;
  }
  toggle(r: HTMLTableRowElement, on = !this.sel.has(r.dataset.k!)) {
    for (const x of [r, ...this.childrenOf(r)]) { if (on) this.sel.add(x.dataset.k!); else this.sel.delete(x.dataset.k!); this.paint(x, on); }
    this.bulk();
  }
  selectAll(on: boolean) { for (const r of this.rows()) { if (on) this.sel.add(r.dataset.k!); else this.sel.delete(r.dataset.k!); this.paint(r, on); } this.bulk(); }
  clearSelection() { for (const k of this.sel) { const r = this.row(k); if (r) this.paint(r, false); } this.sel.clear(); const a = this.querySelector<HTMLInputElement>("#all"); if (a) a.checked = false; this.bulk(); }
  bulk() {
    const b = this.querySelector<HTMLElement>("#bulk")!; b.hidden = this.sel.size === 0;
    let rows = 0, n = 0;
    for (const k of this.sel) {
      const r = this.row(k); if (!r) { rows++; continue; }
      // A group counts its clinics already.
      if (r.getAttribute("aria-level") === "2" && this.parentSelected(r)) continue;
      rows++; const el = r.querySelector('[data-c="n"]'); n += el ? Number(el.textContent!.replace(/,/g, "")) : 1;
    }
    b.querySelector("#seln")!.textContent = String(rows); b.querySelector("#selsub")!.textContent = n.toLocaleString("en-US");
  }
  parentSelected(r: HTMLTableRowElement) {
    let p = r.previousElementSibling as HTMLTableRowElement | null;
    while (p && p.getAttribute("aria-level") === "2") p = p.previousElementSibling as HTMLTableRowElement | null;
    return !!p && this.sel.has(p.dataset.k!);
  }

  // What a verdict is about: the selected rows, a group standing for its clinics; else the row under the cursor.
  targets(): HTMLTableRowElement[] {
    const chosen = this.rows().filter((r) => this.sel.has(r.dataset.k!) && !(r.getAttribute("aria-level") === "2" && this.parentSelected(r)));
    const cur = this.row(this.cursor);
    return chosen.length ? chosen : cur ? [cur] : [];
  }
  async judge() {
    const rows = this.targets(); if (!rows.length) return;
    const p = this.q; p.set("seen", this.dataset.asof!); p.set("back", location.pathname + location.search);
    for (const t of new Set(rows.map((r) => r.dataset.target!))) p.append("k", t);
    await openVerdict(p, (res) => {
      if (!res.pending) this.remove_(rows);
      toast(res.text, res.id, res.undo, this.dataset.csrf!);
      this.clearSelection();
    }, () => this.row(this.cursor)?.focus());
  }
  // Judged rows leave, and the cursor goes to the next one.
  remove_(rows: HTMLTableRowElement[]) {
    const gone = new Set(rows.flatMap((r) => [r, ...this.childrenOf(r)]));
    const targets = new Set(rows.map((r) => r.dataset.target!));
    if (this.getAttribute("mode") === "none") for (const r of this.rows()) if (targets.has(r.dataset.target!)) gone.add(r);
    const all = this.rows(), at = all.findIndex((r) => gone.has(r));
    const next = all.slice(at).find((r) => !gone.has(r)) ?? all.slice(0, at).reverse().find((r) => !gone.has(r));
    for (const r of gone) r.remove();
    if (next) this.moveTo(next); else location.reload();
  }

  async expand(r: HTMLTableRowElement, want?: boolean) {
    if (!r.hasAttribute("aria-expanded")) return;
    const k = r.dataset.k!, is = this.opened.has(k);
    if (want !== undefined && want === is) return;
    r.setAttribute("aria-expanded", String(!is));
    if (is) { this.opened.delete(k); for (const c of this.childrenOf(r)) { this.sel.delete(c.dataset.k!); c.remove(); } this.bulk(); return; }
    this.opened.add(k);
    const p = this.q; p.set("of", r.dataset.sig!); p.set("i", r.getAttribute("aria-rowindex")!);
    try { r.after(await get("/triage/children?" + p)); } catch { this.opened.delete(k); r.setAttribute("aria-expanded", "false"); return; }
    if (this.sel.has(k)) this.toggle(r, true);
  }

  action(a: string, e?: KeyboardEvent): boolean | void {
    const r = this.row(this.cursor);
    switch (a) {
      case "expand": if (r?.hasAttribute("aria-expanded")) void this.expand(r, e?.key === "ArrowRight" ? true : undefined); return true;
      case "collapse":
        if (r?.getAttribute("aria-level") === "2") { let p = r.previousElementSibling as HTMLTableRowElement | null; while (p && p.getAttribute("aria-level") === "2") p = p.previousElementSibling as HTMLTableRowElement | null; if (p) { this.moveTo(p); void this.expand(p, false); } }
        else if (r) void this.expand(r, false);
        return true;
      case "select": if (r) this.toggle(r); return true;
      case "extend-next": case "extend-prev":
        if (r) { this.toggle(r, true); void this.step(a === "extend-next" ? 1 : -1).then((n) => { if (n) this.toggle(n, true); }); }
        return true;
      case "verdict": void this.judge(); return true;
      case "undo": void undo(this.dataset.csrf!); return true;
      case "new": this.showNew(); return true;
      case "clear": if (this.sel.size) { this.clearSelection(); return true; } return;
    }
    return super.action(a, e);
  }
  clicked = (e: Event) => {
    const el = e.target as HTMLElement;
    const r = el.closest<HTMLTableRowElement>("tr[data-k]"); if (!r) return;
    if (el.closest(".tw")) { this.moveTo(r); void this.expand(r); return; }
    if (el instanceof HTMLInputElement) { this.toggle(r, el.checked); return; }
    if (!el.closest("a")) this.moveTo(r);
  };
}
customElements.define("triage-grid", TriageGrid);
