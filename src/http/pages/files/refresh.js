// Refreshes the page periodically: fetches it again and applies the differences to the document.
// Pauses while the page is hidden or a form is in use. If the service can't be reached, it shows the time of the numbers.
'use strict';

(() => {
  const seconds = Number(document.body.dataset.refresh);
  const notice = document.getElementById('connection');
  let isFetching = false;
  let timer;

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
    if (!next) throw new Error('no page');
    const focused = main().contains(document.activeElement) ? document.activeElement : null;
    patch(main(), next);
    // Some pages are not refreshed, such as an overlap that follows an error.
    if (!page.body.dataset.refresh) timer = clearInterval(timer);
    document.title = page.title;
    // The focused link has moved to another row.
    const href = focused && !focused.isConnected && focused.getAttribute('href');
    const again = href && main().querySelector(`a[href="${CSS.escape(href)}"]`);
    if (again) again.focus({ preventScroll: true });
  };

  const unreachable = () => {
    const time = main().querySelector('.as-of time');
    const since = time ? ' The numbers are of ' + time.textContent + '.' : '';
    const text = 'The service can’t be reached.' + since;
    if (notice.textContent !== text) notice.textContent = text;
    main().dataset.stale = '';
  };

  const refresh = async () => {
    if (isFetching || !timer || document.hidden || isInUse()) return;
    isFetching = true;
    try {
      // Without the user name and password of the address, which fetch refuses.
      const response = await fetch(location.origin + location.pathname + location.search, { cache: 'no-store', headers: { accept: 'text/html' }, signal: AbortSignal.timeout(10000) });
      if (response.status === 401) return location.reload();
      if (!(response.headers.get('content-type') || '').startsWith('text/html')) throw new Error('no page');
      const page = new DOMParser().parseFromString(await response.text(), 'text/html');
      if (isInUse()) return;
      show(page);
      if (notice.textContent !== '') notice.textContent = '';
    } catch {
      unreachable();
    } finally {
      isFetching = false;
    }
  };

  if (!seconds) return;
  timer = setInterval(refresh, seconds * 1000);
  document.addEventListener('visibilitychange', refresh);
})();
