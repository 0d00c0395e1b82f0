"use strict";
// The film and the curves of a report. Coordinates of points are whole numbers, 0 to 10,000 over
// the frame of the film; OUT marks what is not finite.
const OUT = -32768, SIDE = 10000, LEVELS = 14, PER_SECOND = 10;
const $ = id => document.getElementById(id);
const decoded = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const number = x => x == null ? "–" : (Math.abs(x) >= 1e5 || x && Math.abs(x) < 1e-3
  ? x.toExponential(1) : String(+x.toPrecision(3))).replace("-", "−");
const short = t => /^-?[\d.]{1,6}$/.test(t) ? String(t).replace("-", "−") : number(t);  // of a tick
const step = n => n.toLocaleString("en");

let run, numbers, image, at = 0, timer = 0, colors, redraws = [];

function load(text) {
  run = JSON.parse(text);
  numbers = {};
  for (const name of ["real", "points", "manifold", "arrows", "modes"])
    if (run[name]) numbers[name] = new Int16Array(decoded(run[name]).buffer);
  if (run.scores) numbers.scores = decoded(run.scores);
}

// ---------------------------------------------------------------------------------- the film

function scaled(canvas, height) {  // a canvas as sharp as the screen, measured in its pixels
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.style.height = height(width) + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height(width) * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, width, height(width)];
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const gap = power * [1, 2, 5, 10].find(m => m * power >= raw), first = Math.ceil(low / gap);
  return Array.from({length: Math.floor(high / gap) - first + 1}, (_, i) => +((first + i) * gap).toPrecision(12));
}

function labelled({low, high, label}) {  // the ticks of an axis, and its label with what they leave out
  const found = ticks(low, high, 6), near = (high - low) / 100;
  const exact = found.every(t => Math.abs(Number(short(t).replace("−", "-")) - t) < near);
  return exact ? [found.map(t => [short(t), t]), label]
    : [found.map(t => [short(+(t - found[0]).toPrecision(6)), t]), label.replace(" [", ` − ${found[0]} [`)];
}

function shown(name) { return $("layer-" + name)?.checked; }

function paint() {
  const canvas = $("picture");
  if (run.kind === "images") { paintImages(canvas); return; }
  const [context, width, height] = scaled(canvas, w => run.kind === "line" ? 0.6 * w : w);
  const box = {left: 64, top: 4, width: width - 68, height: height - 48};
  const x = u => box.left + u / SIDE * box.width, y = v => box.top + (1 - v / SIDE) * box.height;
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  if (run.kind === "line") paintLine(context, box, x);
  else paintPlane(context, box, x, y);
  context.restore();
  paintAxes(context, box, x, y);
}

function paintAxes(context, box, x, y) {
  context.strokeStyle = colors.line;
  context.fillStyle = colors.text;
  context.font = "13px system-ui, sans-serif";
  context.strokeRect(box.left, box.top, box.width, box.height);
  const [across, up] = run.axes, place = (axis, t) => (t - axis.low) / (axis.high - axis.low) * SIDE;
  context.textAlign = "center";
  const [below, title] = labelled(across);
  for (const [text, t] of below) context.fillText(text, x(place(across, t)), box.top + box.height + 17);
  context.fillText(title, box.left + box.width / 2, box.top + box.height + 38);
  context.textAlign = "right";
  if (!up) return;
  const [beside, name] = labelled(up);
  for (const [text, t] of beside) context.fillText(text, box.left - 6, y(place(up, t)) + 4);
  context.save();
  context.translate(12, box.top + box.height / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(name, 0, 0);
  context.restore();
}

function paintPlane(context, box, x, y) {
  const size = Math.max(box.width / 580, 0.6);  // of dots: 1 where there is room
  if (shown("levels")) paintLevels(context, box);
  if (shown("manifold")) paintManifold(context, x, y);
  if (shown("real")) dots(context, numbers.real, 0, numbers.real.length / 2, 4 * size, colors.real, x, y);
  const n = run.counts.points, first = at * n;
  if (shown("arrows")) {
    context.strokeStyle = context.fillStyle = colors.third;
    context.lineWidth = 1.5;
    for (let i = 0; i < run.counts.arrows; i++) {
      const p = 2 * (first + i), a = 2 * (at * run.counts.arrows + i);
      if (numbers.points[p] === OUT || numbers.arrows[a] === OUT) continue;
      arrow(context, x(numbers.points[p]), y(numbers.points[p + 1]),
        numbers.arrows[a] / SIDE * box.width, -numbers.arrows[a + 1] / SIDE * box.height);
    }
  }
  if (shown("generated")) dots(context, numbers.points, first, first + n, 2.2 * size, colors.made, x, y);
  if (!shown("real") || !numbers.modes) return;
  context.fillStyle = colors.text;
  context.font = "bold 13px system-ui, sans-serif";
  context.textAlign = "center";
  for (let i = 0; i < numbers.modes.length / 2; i++)
    context.fillText(i + 1, x(numbers.modes[2 * i]), y(numbers.modes[2 * i + 1]) - 9);
}

function dots(context, places, first, last, radius, fill, x, y) {
  context.fillStyle = fill;
  context.globalAlpha = 0.8;
  context.beginPath();
  for (let i = first; i < last; i++) {
    if (places[2 * i] === OUT) continue;
    const u = x(places[2 * i]), v = y(places[2 * i + 1]);
    context.moveTo(u + radius, v);
    context.arc(u, v, radius, 0, 7);
  }
  context.fill();
  context.globalAlpha = 1;
}

function arrow(context, x, y, dx, dy) {
  const length = Math.hypot(dx, dy), head = Math.min(6, length / 2);
  if (length < 1) return;
  const u = dx / length * head, v = dy / length * head;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + dx - u, y + dy - v);
  context.stroke();
  context.beginPath();
  context.moveTo(x + dx, y + dy);
  context.lineTo(x + dx - u - v / 2, y + dy - v + u / 2);
  context.lineTo(x + dx - u + v / 2, y + dy - v - u / 2);
  context.fill();
}

function packed([r, g, b]) { return (255 << 24 | b << 16 | g << 8 | r) >>> 0; }  // a pixel

function parsed(name) { return color(name).match(/\w\w/g).map(pair => parseInt(pair, 16)); }

function shades() {  // the colours of the levels, from the purple of low scores to the green of high
  const [low, middle, high] = ["low", "middle", "high"].map(parsed);
  return Array.from({length: LEVELS}, (_, i) => {
    const t = 2 * i / (LEVELS - 1) - 1, end = t < 0 ? low : high;
    return packed(middle.map((value, k) => Math.round(value + (end[k] - value) * Math.abs(t))));
  });
}

function score(u, v) {  // the critic's score at a place of the frame, between the middles of cells
  const n = run.counts.cells, [low, high] = run.range[at], s = numbers.scores;
  const p = Math.min(Math.max(u * n - 0.5, 0), n - 1.001);
  const q = Math.min(Math.max(v * n - 0.5, 0), n - 1.001);
  const i = p | 0, j = q | 0, a = p - i, b = q - j, k = (at * n + j) * n + i;
  return low + (high - low) / 255 * ((s[k] * (1 - a) + s[k + 1] * a) * (1 - b)
    + (s[k + n] * (1 - a) + s[k + n + 1] * a) * b);
}

function paintLevels(context, box) {
  const size = 360, picture = new ImageData(size, size), levels = new Int8Array(size * size);
  const pixels = new Uint32Array(picture.data.buffer), palette = shades();
  const edge = packed(parsed("level"));
  for (let j = 0, k = 0; j < size; j++)
    for (let i = 0; i < size; i++, k++) {
      const share = (score((i + 0.5) / size, 1 - (j + 0.5) / size) / run.most + 1) / 2;
      const level = levels[k] = Math.min(Math.max(Math.floor(share * LEVELS), 0), LEVELS - 1);
      const between = i && level !== levels[k - 1] || j && level !== levels[k - size];
      pixels[k] = between ? edge : palette[level];
    }
  const buffer = document.createElement("canvas");
  buffer.width = buffer.height = size;
  buffer.getContext("2d").putImageData(picture, 0, 0);
  context.drawImage(buffer, box.left, box.top, box.width, box.height);
}

function paintManifold(context, x, y) {  // cells of equal probability: the smaller, the denser
  const [wide, high] = run.counts.grid, first = at * wide * high, places = numbers.manifold;
  const corner = (i, j) => {
    const k = 2 * (first + j * wide + i);
    return places[k] === OUT ? null : [x(places[k]), y(places[k + 1])];
  };
  context.fillStyle = context.strokeStyle = colors.made;
  context.lineWidth = 0.7;
  for (let j = 0; j < Math.max(high - 1, 1); j++)
    for (let i = 0; i < wide - 1; i++) {
      const corners = (high > 1 ? [corner(i, j), corner(i + 1, j), corner(i + 1, j + 1), corner(i, j + 1)]
        : [corner(i, j), corner(i + 1, j)]);
      if (corners.includes(null)) continue;
      context.beginPath();
      for (const [u, v] of corners) context.lineTo(u, v);
      context.closePath();
      const area = Math.abs(corners.reduce((sum, [u, v], k) => {
        const [s, t] = corners[(k + 1) % corners.length];
        return sum + u * t - s * v;
      }, 0)) / 2;
      context.globalAlpha = Math.min(0.7, 15 / (area + 1));
      context.fill();
      context.globalAlpha = 0.45;
      context.stroke();
    }
  context.globalAlpha = 1;
}

function paintLine(context, box, x) {  // histograms of points on a line, and the critic's score along it
  const bins = run.bins.real.length, floor = box.top + box.height;
  const outline = (heights, stroke) => {
    context.beginPath();
    context.moveTo(box.left, floor);
    heights.forEach((h, i) => {
      context.lineTo(box.left + i / bins * box.width, floor - h / run.bins.most * box.height);
      context.lineTo(box.left + (i + 1) / bins * box.width, floor - h / run.bins.most * box.height);
    });
    context.lineTo(box.left + box.width, floor);
    context.strokeStyle = context.fillStyle = stroke;
    context.globalAlpha = 0.25;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.stroke();
  };
  if (shown("real")) outline(run.bins.real, colors.real);
  if (shown("generated")) outline(run.bins.generated[at], colors.made);
  if (!shown("levels")) return;
  const cells = run.counts.cells, [low, high] = run.range[at];
  context.beginPath();
  for (let i = 0; i < cells; i++) {
    const value = low + (high - low) / 255 * numbers.scores[at * cells + i];
    context.lineTo(x((i + 0.5) / cells * SIDE), floor - (value / run.most + 1) / 2 * box.height);
  }
  context.setLineDash([6, 4]);
  context.strokeStyle = colors.third;
  context.stroke();
  context.setLineDash([]);
}

function paintImages(canvas) {
  const {width, height, columns, rows} = run.images;
  const [context, across] = scaled(canvas, w => w / columns * height / width * rows);
  context.imageSmoothingEnabled = false;
  const side = across / columns, tall = side * height / width;
  for (let i = 0; i < columns * rows; i++)
    context.drawImage(image, i * width, at * height, width, height, (i % columns) * side + 1,
      Math.floor(i / columns) * tall + 1, side - 2, tall - 2);
}

// -------------------------------------------------------------------------- moments and controls

function rowAt(s) {  // the last row of the log up to a step
  let found = -1;
  while (found + 1 < run.log.step.length && run.log.step[found + 1] <= s) found++;
  return found;
}

function known(name, row) {  // the last known value of a column up to a row
  while (row >= 0 && run.log[name][row] == null) row--;
  return row < 0 ? null : run.log[name][row];
}

function go(moment) {
  at = Math.max(0, Math.min(moment, run.steps.length - 1));
  const s = run.steps[at], row = rowAt(s), told = `Step ${step(s)} of ${step(run.total)}: ${run.told[at]}`;
  paint();
  $("scrubber").value = at;
  $("scrubber").setAttribute("aria-valuetext", told);
  $("picture").setAttribute("aria-label", told);
  $("told").textContent = told;
  $("row").tBodies[0].innerHTML = Object.keys(run.names).map(name =>
    `<tr><th scope="row">${run.names[name]}</th><td>${(name === "step" && row >= 0 ? step : number)(known(name, row))}</td></tr>`).join("");
  redraws.forEach(mark => mark(s));
}

function play(on) {
  cancelAnimationFrame(timer);
  timer = 0;
  $("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (at === run.steps.length - 1) go(0);
  let last = performance.now();
  const frame = now => {
    const due = Math.floor((now - last) / 1000 * PER_SECOND * $("speed").value);
    if (due > 0) {
      last = now;
      go(at + due);
    }
    if (at < run.steps.length - 1) timer = requestAnimationFrame(frame);
    else play(false);
  };
  timer = requestAnimationFrame(frame);
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || !run.kind) return;
  const elsewhere = event.target.closest?.("button, select, input, a");
  if (event.key === " " && (!elsewhere || elsewhere.type === "range")) play(!timer);
  else if (elsewhere) return;
  else if (event.key === "ArrowRight") go(at + 1);
  else if (event.key === "ArrowLeft") go(at - 1);
  else if (event.key === "Home") go(0);
  else if (event.key === "End") go(run.steps.length - 1);
  else return;
  event.preventDefault();
}

// -------------------------------------------------------------------------------- the curves

function chart(spec) {
  const figure = document.createElement("figure");
  figure.innerHTML = `<figcaption><h3>${spec.title}</h3>${spec.note}</figcaption><div class="told"></div><svg role="img"></svg>`;
  $("charts").append(figure);
  const svg = figure.querySelector("svg"), told = figure.querySelector(".told");
  const width = figure.clientWidth, height = 200, left = 48, right = width - 22, top = 8, bottom = height - 24;
  const log = spec.log ? Math.log10 : v => v, [low, high] = spec.limits.map(log);
  const x = s => left + s / run.total * (right - left), y = v => bottom - (log(v) - low) / (high - low) * (bottom - top);
  const inside = v => Math.min(Math.max(y(v), top - 3), bottom + 3), parts = [];
  const rungs = spec.heat?.names ? spec.heat.names.map((n, i) => [n, i + 0.5]) : spec.log
    ? ticks(low, high, 4).filter(Number.isInteger).map(e => ["1e" + e, 10 ** e])
    : ticks(low, high, 4).map(t => [short(t), t]);
  const thin = Math.ceil(rungs.length / 13);
  if (spec.heat) {
    const {edges, shades, steps} = spec.heat;
    shades.forEach((column, i) => column.forEach((shade, j) => {
      if (shade) parts.push(`<rect x="${x(steps[i]).toFixed(1)}" y="${y(edges[j + 1]).toFixed(1)}" width="${(x(steps[i + 1]) - x(steps[i]) + 0.3).toFixed(1)}" height="${(y(edges[j]) - y(edges[j + 1]) + 0.3).toFixed(1)}" fill="var(--made)" fill-opacity="${shade / 100}" shape-rendering="crispEdges"/>`);
    }));
  }
  for (const [text, value] of rungs.filter((_, i) => i % thin === 0))
    parts.push(`${spec.heat ? "" : `<line x1="${left}" x2="${right}" y1="${y(value)}" y2="${y(value)}" stroke="var(--line)"/>`}<text x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${text}</text>`);
  for (const t of ticks(0, run.total, width < 420 ? 3 : 5).filter(Number.isInteger))
    parts.push(`<text x="${x(t)}" y="${height - 6}" text-anchor="middle">${step(t)}</text>`);
  if (spec.band) {
    const [a, b] = spec.band.map(inside);
    parts.push(`<rect class="band" x="${left}" width="${right - left}" y="${b - 1}" height="${a - b + 2}" fill="var(--real)" fill-opacity="0.3"/>`);
  }
  if (spec.mark != null)
    parts.push(`<line x1="${left}" x2="${right}" y1="${y(spec.mark)}" y2="${y(spec.mark)}" stroke="var(--text)" stroke-dasharray="5 4"/>`);
  for (const curve of spec.lines ?? []) {
    const places = run.log.step.map((s, i) => [s, run.log[curve.column][i]]).filter(p => p[1] != null);
    parts.push(`<polyline points="${places.map(([s, v]) => x(s).toFixed(1) + "," + inside(v).toFixed(1)).join(" ")}" fill="none" stroke="var(--${curve.color})" stroke-width="1.6"/>`);
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", `${spec.title}. ${spec.summary}`);
  svg.innerHTML = parts.join("") + `<line class="cursor" y1="${top}" y2="${bottom}" stroke="var(--text)" stroke-width="1.5"/>`;
  const cursor = svg.querySelector(".cursor");
  const say = s => {
    const values = spec.heat ? [spec.heat.told[Math.min(spec.heat.steps.findLastIndex(t => t <= s), spec.heat.told.length - 1)]]
      : spec.lines.map(curve => `<span style="color: var(--${curve.color})">${curve.name}</span> ${number(known(curve.column, rowAt(s)))}`);
    told.innerHTML = `step ${step(s)}: ${values.join(", ")}`;
  };
  const under = event => {
    const share = (event.clientX - svg.getBoundingClientRect().left) / svg.clientWidth * width;
    return Math.round(Math.min(Math.max((share - left) / (right - left), 0), 1) * run.log.step.at(-1));
  };
  let marked = run.log.step.at(-1);
  const mark = s => {
    marked = s;
    cursor.setAttribute("x1", x(s));
    cursor.setAttribute("x2", x(s));
    say(s);
  };
  svg.onpointermove = event => say(run.log.step[Math.max(rowAt(under(event)), 0)]);
  svg.onpointerleave = () => say(marked);
  svg.onclick = event => {
    const s = under(event), near = run.steps.map(t => Math.abs(t - s));
    if (run.kind) go(near.indexOf(Math.min(...near)));
  };
  mark(marked);
  redraws.push(mark);
}

// --------------------------------------------------------------------------------- the whole

function walk() {
  const section = $("walk"), canvas = section.querySelector("canvas"), slider = section.querySelector("input");
  const {width, height, columns, places} = run.walk, sheet = new Image();
  section.hidden = false;
  slider.max = places - 1;
  const show = () => {
    const [context, across] = scaled(canvas, w => w / columns * height / width);
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < columns; i++)
      context.drawImage(sheet, i * width, slider.value * height, width, height, i * across / columns + 1, 1,
        across / columns - 2, across / columns * height / width - 2);
    slider.setAttribute("aria-valuetext", `place ${+slider.value + 1} of ${places}`);
  };
  sheet.onload = show;
  slider.oninput = show;
  canvas.onpointermove = event => {
    if (!event.buttons) return;
    slider.value = Math.floor(event.offsetX / canvas.clientWidth * places);
    show();
  };
  sheet.src = run.walk.source;
}

function build() {
  colors = Object.fromEntries(["real", "made", "third", "line", "text"].map(name => [name, color(name)]));
  redraws = [];
  $("charts").innerHTML = "";
  run.charts.forEach(chart);
  if (run.walk) walk();
  if (run.nearest) {
    $("nearest").hidden = false;
    $("nearest").querySelector("p").textContent = run.nearest.note;
    $("nearest").querySelector("img").src = run.nearest.source;
  }
  $("caption").textContent = run.caption;
  if (!run.kind) return;
  $("stage").hidden = false;
  $("scrubber").max = run.steps.length - 1;
  $("layers").hidden = !run.layers.length;
  if (!$("layers").querySelector("input"))
    for (const {name, title, color, on} of run.layers)
      $("layers").insertAdjacentHTML("beforeend", `<label><input type="checkbox" id="layer-${name}" ${on ? "checked" : ""}><span class="mark" style="background: var(--${color})"></span><span>${title}</span></label>`);
  go(at);
}

async function follow() {  // while the run goes on: the page again, where the reader stands
  let seen = "", live = "live" in document.body.dataset;
  while (live) {
    await new Promise(done => setTimeout(done, 2000));
    try {
      const answer = await fetch(""), text = await answer.text();
      if (text === seen) continue;
      seen = text;
      if (!answer.ok) {
        $("lead").textContent = text;
        continue;
      }
      const page = new DOMParser().parseFromString(text, "text/html"), end = at === run.steps.length - 1;
      live = "live" in page.body.dataset;
      for (const id of ["lead", "advice", "scores", "about", "data"])
        $(id).innerHTML = page.getElementById(id).innerHTML;
      load($("data").textContent);
      if (end) at = run.steps.length - 1;
      start();
    } catch {
      $("lead").textContent = "The training has ended, or its server has: report.html in the folder of the run holds the whole.";
      live = false;
    }
  }
}

function start() {
  if (run.kind !== "images") { build(); return; }
  image = new Image();
  image.onload = build;
  image.src = run.images.source;
}

load($("data").textContent);
at = run.steps.length - 1;
start();
follow();
$("scrubber").oninput = () => go(+$("scrubber").value);
$("play").onclick = () => play(!timer);
$("layers").onchange = () => go(at);
document.onkeydown = keys;
for (const kind of ["print", "(prefers-color-scheme: dark)"]) matchMedia(kind).onchange = build;
let wide = innerWidth;
onresize = () => { if (innerWidth !== wide) { wide = innerWidth; build(); } };
