/*
 * Telling those who wait that a slot may have moved.
 */
#ifndef REPLSYNC_SLOT_NEWS_H
#define REPLSYNC_SLOT_NEWS_H

extern Size replsync_slot_news_size(void);
extern void replsync_slot_news_startup(void);
extern void replsync_slot_news_init(void);

extern bool replsync_slot_news_await(void);
extern void replsync_slot_news_end(void);

#endif
