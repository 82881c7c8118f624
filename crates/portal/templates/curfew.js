// Has an open page follow its session: another tab may keep it going, or it may end early. What is
// learned moves the style sheet's own countdown (left.css), which locks the page by itself should this
// script or the network fail. Looking keeps no session alive.
'use strict';
(() => {
  const root = document.documentElement;
  const body = document.body;
  const main = document.getElementById('main');
  const LOOK_EVERY = 15000; // ms, while the page is looked at
  const LOOK_SOON = 5000; // ms, while the page warns
  const TICK = 1000; // ms between two looks at the clock
  const one = (selector) => document.querySelector(selector);
  const ask = (path, options) => fetch(path, {
    credentials: 'same-origin', cache: 'no-store', headers: { Accept: 'application/json' }, ...options,
  });

  // A sign-in form in a browser that has signed in meanwhile, in another tab: go on.
  const form = one('form[action="/sign-in"]');
  if (form) {
    const goOn = async () => {
      if (document.visibilityState !== 'visible') return;
      const answer = await ask('/session/state').catch(() => null);
      if (!answer || !answer.ok || (await answer.json()).state !== 'live') return;
      const query = new URLSearchParams();
      for (const name of ['resource', 'to', 'state', 'aal', 'round']) {
        const field = form.elements.namedItem(name);
        if (field && field.value) query.set(name, field.value);
      }
      location.replace(`/sign-in?${query}`);
    };
    document.addEventListener('visibilitychange', goOn);
    addEventListener('pageshow', (event) => { if (event.persisted) goOn(); });
    return;
  }
  if (!main || !body.dataset.subject) return;

  let ends = Date.now() + Number(body.dataset.left);
  let warning = Number(body.dataset.warn);
  let looked = Date.now();
  let looking = null;

  // Moves the countdown of the style sheet to where the session ends now.
  const countDown = (left) => {
    ends = Date.now() + left;
    const warn = Math.max(left - warning, 0);
    for (const animation of document.getAnimations()) {
      const target = animation.effect && animation.effect.target;
      if (!(animation instanceof CSSAnimation) || !target) continue;
      const isWarning = animation.animationName === 'show' && target.matches('.warning');
      const delay = Number(animation.currentTime) + (isWarning ? warn : left);
      animation.effect.updateTiming({ delay });
    }
  };

  const lock = (why) => {
    root.dataset.locked = '';
    const shown = one('.locked [data-why]');
    const link = one('.locked a');
    shown.textContent = `${why} What you have typed here is kept: sign in, and come back to this page.`;
    link.textContent = 'Sign in';
    link.href = '/sign-in';
    link.target = '_blank';
    link.rel = 'noopener';
  };

  const take = (look) => {
    if (look.state !== 'live') return lock(look.why);
    // Somebody else has signed in: nothing of this page is theirs.
    if (look.subject !== body.dataset.subject) return location.reload();
    for (const field of document.querySelectorAll('input[name="csrf"]')) field.value = look.csrf;
    for (const shown of document.querySelectorAll('[data-time-left]')) shown.textContent = look.left;
    for (const part of document.querySelectorAll('[data-extends-by]')) {
      part.hidden = part.dataset.extendsBy !== look.extends_by;
    }
    warning = look.warn_ms;
    countDown(look.left_ms);
    delete root.dataset.locked;
  };

  // One look at a time; without an answer the countdown goes on as it was.
  const look = () => {
    looked = Date.now();
    looking ??= ask('/session/state')
      .then(async (answer) => { if (answer.ok) take(await answer.json()); })
      .catch(() => {})
      .finally(() => { looking = null; });
    return looking;
  };

  const stay = one('form[data-stay]');
  if (stay) {
    stay.addEventListener('submit', (event) => {
      event.preventDefault();
      ask(stay.action, { method: 'POST', body: new URLSearchParams(new FormData(stay)) })
        .then(async (answer) => (answer.ok ? take(await answer.json()) : look()))
        .catch(() => {});
    });
  }
  // So that what was typed here stays.
  const again = one('.warning a');
  if (again) Object.assign(again, { target: '_blank', rel: 'noopener' });

  // By the wall clock, which goes on while the machine sleeps.
  let before = Date.now();
  setInterval(() => {
    const now = Date.now();
    const slept = now - before > 5 * TICK;
    before = now;
    const visible = document.visibilityState === 'visible';
    const due = now - looked >= LOOK_EVERY;
    if (now >= ends) {
      const locks = !('locked' in root.dataset);
      if (locks) lock('The time of this page has run out.');
      if (locks || (visible && due)) look();
    } else if (visible && (slept || due || (ends - now <= warning && now - looked >= LOOK_SOON))) {
      look();
    }
  }, TICK);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') look();
  });
  // Whoever goes back finds the page hidden until it is known that it may be seen.
  addEventListener('pagehide', () => { root.dataset.locked = ''; });
  addEventListener('pageshow', (event) => {
    if (event.persisted) look();
  });
})();
