// Refreshes the page periodically: fetches it again and applies the differences to the document.
// Pauses while a form is in use, and while the page is hidden unless its title has a number. A hidden page then refreshes
// less often. If there are no newer numbers, it keeps those that the page has, and shows their time.

import { keepReading } from './charts.js';

const seconds = Number(document.body.dataset.refresh);
const hiddenSeconds = Number(document.body.dataset.refreshHidden);
const notice = document.getElementById('connection');
let isFetching = false;
let isOver = !seconds;
let timer;
// Attempts without numbers since the last numbers. The load of an error page was one.
let failures = document.getElementById('error') ? 1 : 0;

const main = () => document.getElementById('main');

/** Returns whether a change would disturb the user. */
const isInUse = () => {
  const active = document.activeElement;
  const writes = active && active.matches('input, select, textarea') && main().contains(active);
  return writes || main().querySelector('input[type="checkbox"]:checked') || String(document.getSelection()) !== '';
};

/** Identifies a node among its siblings: a row by its first link. */
const identity = (node) => {
  if (node.nodeType !== Node.ELEMENT_NODE) return node.nodeName;
  const link = node.matches('tr') ? node.querySelector('a') : node;
  return [node.nodeName, node.id, link && link.getAttribute('href')].join(' ');
};

/** Turns `old` into `next`. Equal parts are not touched, so selection, focus and input stay. */
const patch = (old, next) => {
  if (identity(old) !== identity(next)) return old.replaceWith(next);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Details that the user has opened stay open.
    if (name !== 'open' && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const before = [...old.childNodes];
  const after = [...next.childNodes];
  after.forEach((node, at) => (at < before.length ? patch(before[at], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
};

/** Replaces the main part by that of `page`. */
const show = (page) => {
  const next = page.getElementById('main');
  const focused = main().contains(document.activeElement) ? document.activeElement : null;
  keepReading(main(), next);
  patch(main(), next);
  // Some pages are not refreshed, such as an overlap that follows an error.
  if (!page.body.dataset.refresh) isOver = true;
  document.title = page.title;
  // The focused link has moved to another row.
  const href = focused && !focused.isConnected && focused.getAttribute('href');
  const again = href && main().querySelector(`a[href="${CSS.escape(href)}"]`);
  if (again) again.focus({ preventScroll: true });
};

/** Shows `text` and the time of the numbers, if the page has some. Returns whether it has. */
const keep = (text, next = 'Retrying…') => {
  const time = main().querySelector('.as-of time');
  if (!time) return false;
  const full = `${text} Showing data from ${time.textContent}. ${next}`;
  if (notice.textContent !== full) notice.textContent = full;
  main().dataset.stale = '';
  return true;
};

/** Schedules the next attempt: after a failure in 1, 2, 4 and so on seconds, at most the usual interval. */
const schedule = () => {
  clearTimeout(timer);
  if (isOver) return;
  const usual = document.hidden && hiddenSeconds ? hiddenSeconds : seconds;
  const delay = failures ? Math.min(2 ** (failures - 1), usual) : usual;
  timer = setTimeout(refresh, 1000 * delay);
  // An error page tells its reader.
  const retries = document.getElementById('retries');
  if (!retries) return;
  retries.textContent = `Trying again in ${delay} s.`;
  retries.hidden = false;
};

/** Fetches the page and shows it. */
const load = async () => {
  // Without the user name and password of the address, which fetch refuses.
  const response = await fetch(location.origin + location.pathname + location.search, { cache: 'no-store', headers: { accept: 'text/html' }, signal: AbortSignal.timeout(10000) });
  if (response.status === 401 && !isInUse()) return location.reload();
  if (!(response.headers.get('content-type') || '').startsWith('text/html')) throw new Error('no page');
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  if (!page.getElementById('main')) throw new Error('no page');
  failures = response.status >= 500 || response.status === 429 ? failures + 1 : 0;
  if (failures && keep('Counts are unavailable right now.')) return;
  if (isInUse()) {
    if (notice.textContent !== '') keep('Counts are available again.', 'Paused while you select or type.');
    return;
  }
  show(page);
  if (notice.textContent !== '') notice.textContent = '';
};

const refresh = async () => {
  if (isFetching || isOver || (document.hidden && !hiddenSeconds)) return;
  isFetching = true;
  try {
    // After a failure the page asks even while it is in use, so that the notice stays true.
    if (failures || !isInUse()) await load();
  } catch {
    failures += 1;
    if (!keep('The service can’t be reached.')) notice.textContent = 'The service can’t be reached. Retrying…';
  } finally {
    isFetching = false;
    schedule();
  }
};

schedule();
// A page is refreshed at once when it is visible again.
document.addEventListener('visibilitychange', () => (document.hidden ? schedule() : refresh()));
