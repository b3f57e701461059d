// Reads values off a chart: by pointer, by touch, and by the arrow keys. Charts of one episode are read together.

export function readCharts(root) {
  for (const figure of root.querySelectorAll(".chart:not([data-read])")) {
    figure.dataset.read = "";
    const area = figure.querySelector(".area");
    let place = 0;

    const go = (to) => {
      place = to;
      for (const chart of figure.closest("[data-together]")?.querySelectorAll(".chart") ?? [figure]) {
        show(chart, points(figure).at[place], chart === figure);
      }
    };
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      go(nearest(points(figure).at, (event.clientX - box.left) / box.width));
    });
    area.addEventListener("pointerleave", () => {
      for (const chart of figure.closest("[data-together]")?.querySelectorAll(".chart") ?? [figure]) hide(chart);
    });
    figure.addEventListener("keydown", (event) => {
      const last = points(figure).at.length - 1;
      const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      go(Math.max(0, Math.min(last, to)));
    });
    figure.addEventListener("blur", () => hide(figure));
  }
}

function points(figure) {
  figure.pointsRead ??= JSON.parse(figure.dataset.points);
  return figure.pointsRead;
}

function show(figure, at, whole) {
  const { at: places, x, lines } = points(figure);
  if (!places?.length) return;
  const place = nearest(places, at);
  const told = lines.map((line) => (lines.length > 1 ? `${line.name} ${line.y[place]}` : line.y[place])).join(", ");
  figure.querySelector(".readout").textContent = whole ? `${x[place]}: ${told}` : told;
  const cross = figure.querySelector(".cross");
  cross.hidden = false;
  cross.style.left = `${100 * places[place]}%`;
}

function hide(figure) {
  figure.querySelector(".readout").textContent = "";
  figure.querySelector(".cross").hidden = true;
}

function nearest(places, at) {
  let best = 0;
  for (let i = 1; i < places.length; i++) {
    if (Math.abs(places[i] - at) < Math.abs(places[best] - at)) best = i;
  }
  return best;
}
