// Keeps a part of the page as it is now. Browsers connect again after a break, but not after a refusal: we do.

const AGAIN_MS = [2000, 5000, 10_000, 30_000];

export function follow(slot, settle, trouble) {
  const state = slot.closest(".card")?.querySelector("[data-live-state]");
  let failures = 0;
  let at = new Date();
  let source;

  function tell(name, text) {
    if (!state || state.textContent === text) return;
    state.className = `pulse ${name}`;
    state.textContent = text;
  }

  function put(...parts) {
    const focused = slot.contains(document.activeElement) && document.activeElement.getAttribute("href");
    const across = slot.querySelector(".scroll")?.scrollLeft ?? 0;
    slot.replaceChildren(...parts);
    settle(slot);
    if (focused) slot.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    const region = slot.querySelector(".scroll");
    if (region) region.scrollLeft = across;
  }

  // What was seen last says more than nothing, as long as it is not taken for what is.
  function outdated(text) {
    if (!slot.querySelector("table")) return tell("off", text);
    slot.classList.add("stale");
    tell("off", `${text}; as of ${at.toISOString().slice(11, 19)} UTC`);
  }

  function connect() {
    source = new EventSource("/live");
    source.addEventListener("open", () => { failures = 0; });
    source.addEventListener(slot.dataset.live, (event) => {
      const part = document.createRange().createContextualFragment(JSON.parse(event.data).html);
      put(...part.childNodes);
      slot.dataset.lived = "";
      at = new Date();
      slot.classList.remove("stale");
      tell("on", "live");
    });
    source.addEventListener("trouble", (event) => {
      const { what, advice } = JSON.parse(event.data);
      const told = trouble(what, advice);
      if (slot.querySelector("table")) {
        slot.querySelector(":scope > .trouble")?.remove();
        slot.prepend(told);
      } else put(told);
      outdated("no data");
    });
    source.addEventListener("error", () => {
      outdated("not live, connecting again");
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(connect, AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)]);
    });
  }

  connect();
  // A page in the background needs no stream, and a server has only so many.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source.close();
    else if (source.readyState === EventSource.CLOSED) connect();
  });
}
