import java.nio.ByteBuffer;

/** A service whose memory is mostly outside the Java heap: 120 MiB of direct buffers, 40 threads. */
class Direct {
    static final ByteBuffer[] buffers = new ByteBuffer[120];

    public static void main(String[] words) throws Exception {
        for (int i = 0; i < buffers.length; i++) {
            buffers[i] = ByteBuffer.allocateDirect(1 << 20);
            for (int at = 0; at < 1 << 20; at += 4096)
                buffers[i].put(at, (byte) 1);
        }
        for (int i = 0; i < 40; i++) {
            Thread thread = new Thread(() -> {
                try {
                    Thread.sleep(Long.MAX_VALUE);
                } catch (InterruptedException end) {
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
        System.out.println("{}");
        System.in.read();
    }
}
