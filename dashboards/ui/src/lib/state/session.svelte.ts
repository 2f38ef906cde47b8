// Who is signed in, the state of the system for the foot, and the way to the sign-in page when the server forgets us.
import { api, onSignedOut, Problem } from '../api/client';
import type { Session, Status } from '../api/types';
import { go, where } from './url.svelte';

const STATUS_EVERY_MS = 5_000;

let current = $state.raw<Session | null>(null);
let status = $state.raw<Status | null>(null);
let silentSince = $state<number | null>(null);
let known = $state(false);

export const session = {
  get user() {
    return current?.user ?? null;
  },
  /** False until the server has said whether it knows us. */
  get known() {
    return known;
  },
};

export const health = {
  get status() {
    return status;
  },
  /** Local time since when the dashboard has not answered, or null. */
  get silentSince() {
    return silentSince;
  },
};

function toLogin(): void {
  current = null;
  if (where.path === '/login') return;
  const back = location.pathname + location.search;
  go(back === '/' ? '/login' : `/login?next=${encodeURIComponent(back)}`, 'replace');
}
onSignedOut(toLogin);

export async function begin(): Promise<void> {
  if (where.path === '/login') {
    known = true;
    return;
  }
  try {
    current = await api.session();
  } catch (error) {
    if (error instanceof Problem && error.status === 401) toLogin();
    else silentSince ??= Date.now();
  }
  known = true;
}

export async function signIn(token: string): Promise<void> {
  current = await api.login(token);
  known = true;
}

export async function signOut(): Promise<void> {
  await api.logout().catch(() => {});
  current = null;
  go('/login');
}

export function watchStatus(): () => void {
  let stopped = false;
  const look = async () => {
    if (stopped || where.path === '/login') return;
    try {
      status = await api.status();
      silentSince = null;
      if (!current) current = await api.session();
    } catch (error) {
      if (error instanceof Problem && error.status !== 401) silentSince ??= Date.now();
    }
  };
  void look();
  const timer = setInterval(() => document.visibilityState === 'visible' && void look(), STATUS_EVERY_MS);
  return () => {
    stopped = true;
    clearInterval(timer);
  };
}
