// Builds the page into dist/ as external files only, so that `default-src 'self'` holds without an exception.
// `--mode mock` answers /api/v1 from generated fixtures; otherwise the dev server asks a running dashboard.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import { mockApi } from './dev/mock.ts';

export default defineConfig(({ mode }) => ({
  plugins: [svelte(), ...(mode === 'mock' ? [mockApi()] : [])],
  build: {
    target: 'es2023',
    // A `data:` font or image would need a wider policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 400,
  },
  server: {
    host: '127.0.0.1',
    port: 5173,
    strictPort: true,
    ...(mode === 'mock' ? {} : { proxy: { '/api': 'http://127.0.0.1:7080' } }),
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
}));
