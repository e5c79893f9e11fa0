// Keeps a page's figures fresh: it asks for the same page again now and then, and makes what is shown the same as what it gets.
// It waits while nobody looks, or while somebody is at work in a form. When the service can't be reached, it says of when the figures are.
'use strict';

(() => {
  const seconds = Number(document.body.dataset.refresh);
  const notice = document.getElementById('connection');
  let asking = false;
  let timer;

  const main = () => document.getElementById('main');

  /** Whether a change would be in somebody's way. */
  const inUse = () => {
    const active = document.activeElement;
    const writes = active && active.matches('input, select, textarea') && main().contains(active);
    return writes || main().querySelector('input[type="checkbox"]:checked') || String(document.getSelection()) !== '';
  };

  /** What tells a node from its neighbours: a row is that of its first link. */
  const identity = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return node.nodeName;
    const link = node.matches('tr') ? node.querySelector('a') : node;
    return [node.nodeName, node.id, link && link.getAttribute('href')].join(' ');
  };

  /** Makes `old` what `next` is, and leaves what is the same: who reads it, has the focus in it or has typed something is not disturbed. */
  const patch = (old, next) => {
    if (identity(old) !== identity(next)) return old.replaceWith(next);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== next.data) old.data = next.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      // What somebody has opened stays open.
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

  /** Makes the main part that of `page`. */
  const show = (page) => {
    const next = page.getElementById('main');
    if (!next) throw new Error('no page');
    const focused = main().contains(document.activeElement) ? document.activeElement : null;
    patch(main(), next);
    // Some pages are not to be asked for again by themselves, such as an overlap that follows an error.
    if (!page.body.dataset.refresh) timer = clearInterval(timer);
    document.title = page.title;
    // A link that has moved to another row.
    const href = focused && !focused.isConnected && focused.getAttribute('href');
    const again = href && main().querySelector(`a[href="${CSS.escape(href)}"]`);
    if (again) again.focus({ preventScroll: true });
  };

  const unreachable = () => {
    const time = main().querySelector('.as-of time');
    const since = time ? ' The figures are of ' + time.textContent + '.' : '';
    const text = 'The service can’t be reached.' + since;
    if (notice.textContent !== text) notice.textContent = text;
    main().dataset.stale = '';
  };

  const refresh = async () => {
    if (asking || !timer || document.hidden || inUse()) return;
    asking = true;
    try {
      // Without what the address may have of a user name and a password, which fetch refuses.
      const answer = await fetch(location.origin + location.pathname + location.search, { cache: 'no-store', headers: { accept: 'text/html' }, signal: AbortSignal.timeout(10000) });
      if (answer.status === 401) return location.reload();
      if (!(answer.headers.get('content-type') || '').startsWith('text/html')) throw new Error('no page');
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (inUse()) return;
      show(page);
      if (notice.textContent !== '') notice.textContent = '';
    } catch {
      unreachable();
    } finally {
      asking = false;
    }
  };

  if (!seconds) return;
  timer = setInterval(refresh, seconds * 1000);
  document.addEventListener('visibilitychange', refresh);
})();
