// Keeps a page's figures fresh: it asks for the same page again now and then, and puts what it gets in the place of what is shown.
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

  /** Puts the main part of `page` in place, with what was open and what had the focus. */
  const show = (page) => {
    const next = page.getElementById('main');
    if (!next) throw new Error('no page');
    const focused = main().contains(document.activeElement) ? document.activeElement : null;
    const href = focused && focused.getAttribute('href');
    for (const details of main().querySelectorAll('details[open][id]')) {
      const same = next.querySelector('#' + CSS.escape(details.id));
      if (same) same.open = true;
    }
    main().replaceWith(document.adoptNode(next));
    // Some pages are not to be asked for again by themselves, such as an overlap that follows an error.
    if (!page.body.dataset.refresh) timer = clearInterval(timer);
    document.title = page.title;
    const again = href && main().querySelector(`a[href="${CSS.escape(href)}"]`);
    const summary = focused && focused.closest('summary') && focused.closest('details[id]');
    if (again) again.focus({ preventScroll: true });
    else if (summary) main().querySelector(`#${CSS.escape(summary.id)} summary`)?.focus({ preventScroll: true });
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
