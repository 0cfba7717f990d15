// The one place that turns text into markup: fragments that our own server rendered, fetched from the same origin.
const policy = (window as any).trustedTypes?.createPolicy("fragment", { createHTML: (s: string) => s });

export const fragment = (html: string): DocumentFragment => {
  const t = document.createElement("template");
  t.innerHTML = policy ? policy.createHTML(html) : html;
  return t.content;
};

// get loads a fragment. A lost session leads to the login, every other failure throws.
export const get = async (url: string, signal?: AbortSignal): Promise<DocumentFragment> => {
  if (new URL(url, location.href).origin !== location.origin) throw new Error("foreign address");
  const r = await fetch(url, { headers: { Accept: "text/html", "X-Fragment": "1" }, signal });
  if (r.status === 401) location.reload();
  if (!r.ok) throw new Error(String(r.status));
  return fragment(await r.text());
};

// post sends a form's fields; the answer is a fragment or JSON, by its status.
export const post = (url: string, body: URLSearchParams) =>
  fetch(url, { method: "POST", body, headers: { "X-Fragment": "1" } });
