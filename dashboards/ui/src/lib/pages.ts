// The pages there are. Navigation, palette and keys read this list, so that none of them offers a page that does not exist.
import type { IconName } from './parts/Icon.svelte';

export interface Page {
  path: string;
  title: string;
  group: string;
  key: string;
  icon: IconName;
}

export const PAGES: Page[] = [
  { path: '/', title: 'Overview', group: 'Watch', key: 'o', icon: 'overview' },
  { path: '/services', title: 'Services', group: 'Watch', key: 's', icon: 'services' },
  { path: '/requests', title: 'Requests', group: 'Investigate', key: 'r', icon: 'requests' },
];
