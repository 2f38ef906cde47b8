// Starts the page. Everything it draws hangs below <App>.
import { mount } from 'svelte';
import './styles/tokens.css';
import './styles/base.css';
import App from './App.svelte';

const target = document.getElementById('page');
if (!target) throw new Error('index.html has no element with the id "page"');
mount(App, { target });
