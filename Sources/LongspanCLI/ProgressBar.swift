import Foundation
import LongspanModels

/// A bar with rate and time left on stderr, drawn only on a terminal and at most ten times a second.
final class ProgressBar {
  private let unit: String
  private let isVisible = isatty(STDERR_FILENO) == 1
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant
  private var lastDrawn: ContinuousClock.Instant?

  init(unit: String) {
    self.unit = unit
    start = clock.now
  }

  /// Draws progress; always returns true, to go on.
  func update(_ progress: ProgressUpdate) -> Bool {
    guard isVisible else { return true }
    let now = clock.now
    if let lastDrawn, now - lastDrawn < .milliseconds(100), progress.completed < progress.total {
      return true
    }
    lastDrawn = now
    write("\r\u{1B}[K" + ProgressBar.line(progress, unit: unit, elapsed: seconds(now - start)))
    return true
  }

  /// Removes the bar.
  func clear() {
    if isVisible, lastDrawn != nil { write("\r\u{1B}[K") }
    lastDrawn = nil
  }

  /// One line: stage, bar, count, rate and time left.
  static func line(_ progress: ProgressUpdate, unit: String, elapsed: Double) -> String {
    let width = 24
    let share = progress.total > 0 ? Double(progress.completed) / Double(progress.total) : 1
    let filled = min(width, Int(share * Double(width)))
    let bar = String(repeating: "#", count: filled) + String(repeating: "-", count: width - filled)
    var line = "\(progress.stage) [\(bar)] \(progress.completed)/\(progress.total) \(unit)"
    if progress.completed > 0, elapsed > 0 {
      let rate = Double(progress.completed) / elapsed
      let left = Double(progress.total - progress.completed) / rate
      line += ", \(decimal(rate, rate < 10 ? 1 : 0))/s, \(duration(left)) left"
    }
    return line
  }

  private static func duration(_ seconds: Double) -> String {
    let whole = Int(seconds.rounded(.up))
    if whole >= 3600 { return "\(whole / 3600)h\(whole % 3600 / 60)m" }
    return whole >= 60 ? "\(whole / 60)m\(whole % 60)s" : "\(whole)s"
  }

  private func write(_ text: String) {
    FileHandle.standardError.write(Data(text.utf8))
  }
}

/// A duration in seconds.
func seconds(_ duration: Duration) -> Double {
  let (whole, attoseconds) = duration.components
  return Double(whole) + Double(attoseconds) * 1e-18
}
