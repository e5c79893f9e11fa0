// Reads charts: a pointer, a finger or the arrow keys move from mark to mark. The line under the chart has the text of
// the mark, which is its tooltip without this script.

const graphs = (root) => [...root.querySelectorAll('.graph')];
const marks = (graph) => [...graph.querySelectorAll('.mark')];
const graphOf = (event) => event.target.closest?.('.graph');
const chief = (graph) => Number(graph.dataset.chief);
const position = (mark) => parseFloat(mark.dataset.x) / 100;

/** Shows the mark at `index`. */
const show = (graph, index) => {
  const all = marks(graph);
  const shown = all[index];
  if (!shown) return;
  const isRead = graph.dataset.reading !== undefined;
  for (const mark of all) mark.classList.toggle('read', isRead && mark === shown);
  const crosshair = graph.querySelector('.crosshair');
  crosshair.setAttribute('x1', shown.dataset.x);
  crosshair.setAttribute('x2', shown.dataset.x);
  const text = shown.querySelector('title').textContent;
  graph.setAttribute('aria-valuenow', index + 1);
  graph.setAttribute('aria-valuetext', text);
  graph.closest('.chart').querySelector('.reading').textContent = text;
};

/** Shows the mark at `index` with the crosshair. */
const read = (graph, index) => {
  graph.dataset.reading = marks(graph)[index]?.dataset.key ?? '';
  show(graph, index);
};

/** Shows the chief mark, without the crosshair. */
const rest = (graph) => {
  delete graph.dataset.reading;
  show(graph, chief(graph));
};

/** Returns the index of the mark with the key `reading`; -1 if there is none. */
const indexOf = (graph, reading) => marks(graph).findIndex((mark) => mark.dataset.key === reading);

/** Returns the index of the mark with the key `reading`. If it is missing, the nearest in time takes its place. */
const indexAfterRefresh = (graph, reading) => {
  const index = indexOf(graph, reading);
  if (index >= 0) return index;
  const distances = marks(graph).map((mark) => Math.abs(mark.dataset.key - reading));
  // The key of the count of this moment is no time.
  return distances.indexOf(Math.min(...distances.filter(Number.isFinite)));
};

/** Makes the chart a slider, which screen readers operate with the arrow keys. Without this script it is an image. */
const prepare = (graph) => {
  graph.setAttribute('role', 'slider');
  graph.setAttribute('aria-valuemin', 1);
  graph.setAttribute('aria-valuemax', marks(graph).length);
  graph.tabIndex = 0;
  rest(graph);
};

/** Prepares the charts of `next`, which is about to replace `main`, at the marks that are read in `main`. */
export const keepReading = (main, next) => {
  for (const graph of graphs(next)) {
    prepare(graph);
    const old = main.querySelector(`#${graph.closest('.chart').id} .graph`);
    if (old?.dataset.reading === undefined) continue;
    read(graph, indexAfterRefresh(graph, old.dataset.reading));
  }
};

const isFocused = (graph) => document.activeElement === graph;

/** Reads the mark under the pointer. */
const point = (event) => {
  const graph = graphOf(event);
  if (!graph) return;
  const plot = graph.querySelector('.plot').getBoundingClientRect();
  const at = (event.clientX - plot.left) / plot.width;
  const distances = marks(graph).map((mark) => Math.abs(position(mark) - at));
  read(graph, distances.indexOf(Math.min(...distances)));
};

/** Returns the index to which a key leads; undefined for other keys. */
const target = (key, index, last) => {
  const page = Math.ceil((last + 1) / 10);
  const targets = {
    ArrowLeft: index - 1,
    ArrowDown: index - 1,
    ArrowRight: index + 1,
    ArrowUp: index + 1,
    PageDown: index - page,
    PageUp: index + page,
    Home: 0,
    End: last,
  };
  return targets[key];
};

const press = (event) => {
  const graph = graphOf(event);
  if (!graph || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === 'Escape') return rest(graph);
  const last = marks(graph).length - 1;
  const { reading } = graph.dataset;
  const index = target(event.key, reading === undefined ? chief(graph) : indexOf(graph, reading), last);
  if (index === undefined) return;
  event.preventDefault();
  read(graph, Math.min(Math.max(index, 0), last));
};

graphs(document).forEach(prepare);
document.addEventListener('pointermove', point);
document.addEventListener('pointerdown', point);
document.addEventListener('pointerout', (event) => {
  const graph = graphOf(event);
  // A finger that is lifted leaves the reading where it was.
  if (graph && event.pointerType === 'mouse' && !graph.contains(event.relatedTarget) && !isFocused(graph)) rest(graph);
});
document.addEventListener('keydown', press);
document.addEventListener('focusin', (event) => {
  const graph = graphOf(event);
  if (graph && graph.dataset.reading === undefined) read(graph, chief(graph));
});
document.addEventListener('focusout', (event) => {
  const graph = graphOf(event);
  if (graph) rest(graph);
});
