// Brings the state and the figures up to date. All works without it; what it adds, the pause button, it makes itself.
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
