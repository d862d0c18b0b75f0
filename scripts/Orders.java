import java.util.ArrayList;
import java.util.List;

/** A service at rest: forty threads that wait, and a hundred thousand orders in memory. */
class Orders {
    static final List<byte[]> orders = new ArrayList<>();

    public static void main(String[] words) throws Exception {
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
        for (int i = 0; i < 100_000; i++)
            orders.add(new byte[500 + i % 1000]);
        System.gc();
        System.out.println("{}");
        System.in.read();
    }
}
