// All works without it. It makes what it adds: the pause button, and the number of selected dead letters.
(() => {
  const bar = document.querySelector(".bar");
  if (!bar) return;
  const form = bar.closest("form"), all = form.elements.namedItem("all"), rows = [...form.querySelectorAll("td.check input")];
  const button = document.createElement("button"), chosen = document.createElement("output");
  button.type = "button";
  button.className = "plain";
  bar.prepend(button, chosen);
  const show = () => {
    const count = rows.filter(row => row.checked).length;
    for (const row of rows) row.disabled = !!all?.checked;
    button.disabled = !!all?.checked;
    button.textContent = count < rows.length ? `Select these ${rows.length}` : "Select none";
    chosen.textContent = all?.checked || !count ? "" : `${count} selected`;
  };
  button.addEventListener("click", () => {
    const every = rows.every(row => row.checked);
    for (const row of rows) row.checked = !every;
    show();
  });
  form.addEventListener("change", show);
  addEventListener("pageshow", show); // a page that is gone back to keeps its ticks
  show();
})();

// Brings the state and the figures up to date.
(() => {
  const state = document.getElementById("state"), live = document.getElementById("live");
  if (!live) return;
  let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  const show = () => { button.textContent = paused ? "Resume updates" : "Pause updates"; };
  button.addEventListener("click", () => { paused = !paused; show(); });
  show();
  document.getElementById("updates").append(button);
  const essence = state => state.textContent.replace(/\d[\d.,]*/g, ""); // without ages and counts, which change all the time
  const refresh = async () => {
    if (paused || document.hidden || live.contains(document.activeElement)) return;
    const answer = await fetch(location.pathname, { cache: "no-store" });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const figures = fresh.getElementById("live"), now = fresh.getElementById("state");
    if (!figures || paused || live.contains(document.activeElement)) return;
    const changed = essence(state) !== essence(now);
    state.className = now.className;
    state.replaceChildren(...now.childNodes);
    if (changed) document.getElementById("change").textContent = state.textContent; // is read out
    for (const open of live.querySelectorAll("details[open]")) figures.querySelector("#" + open.id)?.setAttribute("open", "");
    live.replaceChildren(...figures.childNodes);
  };
  setInterval(() => refresh().catch(() => {}), 10000);
})();
