/// The times of one thing that was done again and again.
public struct Timing: Sendable, Equatable {
  /// Nanoseconds of the fastest repetition.
  public let minimum: Double
  /// Nanoseconds of the middle one; the mean of the two middle ones where their count is even.
  public let median: Double
  /// Repetitions that were timed.
  public let repetitions: Int

  /// The timing of samples in nanoseconds; `nil` if there are none.
  public init?(_ samples: [Double]) {
    guard let least = samples.min() else { return nil }
    let sorted = samples.sorted()
    let middle = sorted.count / 2
    minimum = least
    median = sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    repetitions = sorted.count
  }
}

/// Nanoseconds since some moment, never going back.
struct Stopwatch {
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant

  init() {
    start = clock.now
  }

  var nanoseconds: Double {
    let (seconds, attoseconds) = (clock.now - start).components
    return Double(seconds) * 1e9 + Double(attoseconds) * 1e-9
  }
}
